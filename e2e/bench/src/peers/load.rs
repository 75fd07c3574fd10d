//! Load from concurrent clients, and the times of their operations.

use anyhow::Result;
use futures::future::join_all;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A histogram of times up to an hour, with three significant digits.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Times {
    pub fn new() -> Result<Times> {
        Ok(Times(Histogram::new_with_max(3_600_000_000, 3)?))
    }

    pub fn add(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Number of times in the histogram.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantile (for example 0.5 or 0.99) in milliseconds.
    pub fn at(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64 / 1000.0
    }
}

/// The results of a load.
#[derive(Clone, Debug)]
pub struct Outcome<T> {
    pub elapsed: Duration,
    pub times: Times,
    /// The errors of the failed items.
    pub failures: Vec<String>,
    pub done: Vec<T>,
}

/// Closed-loop load: each client processes one item after the other until no item is left.
///
/// # Errors
/// If the histogram cannot be created. Failed items are in the results.
pub async fn closed<I, T, F>(clients: usize, items: Vec<I>, work: impl Fn(Arc<I>) -> F) -> Result<Outcome<T>>
where
    F: Future<Output = Result<T>>,
{
    let items: Vec<_> = items.into_iter().map(Arc::new).collect();
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let client = async || {
        let mut results = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            let result = work(Arc::clone(item)).await;
            results.push((begun.elapsed(), result));
        }
        results
    };
    let results = join_all((0..clients).map(|_| client())).await.into_iter().flatten().collect();
    outcome(start.elapsed(), results)
}

/// Open-loop load: items start at a fixed rate per second, even if earlier items still run. The
/// time of an item counts from the moment at which it was due.
///
/// # Errors
/// If the histogram cannot be created. Failed items are in the results.
pub async fn open<I, T, F>(rate: f64, items: Vec<I>, work: impl Fn(Arc<I>) -> F) -> Result<Outcome<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, item) in items.into_iter().enumerate() {
        let due = start + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        let work = work(Arc::new(item));
        tasks.spawn(async move {
            let result = work.await;
            (due.elapsed(), result)
        });
    }
    outcome(start.elapsed(), tasks.join_all().await)
}

fn outcome<T>(elapsed: Duration, results: Vec<(Duration, Result<T>)>) -> Result<Outcome<T>> {
    let mut outcome = Outcome { elapsed, times: Times::new()?, failures: Vec::new(), done: Vec::new() };
    for (time, result) in results {
        match result {
            Ok(done) => {
                outcome.times.add(time);
                outcome.done.push(done);
            }
            Err(error) => outcome.failures.push(format!("{error:#}")),
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[tokio::test]
    async fn clients_share_the_items_and_failures_are_counted() {
        let work = |item: Arc<u32>| async move {
            ensure!(*item != 3, "three");
            Ok(*item)
        };
        let outcome = closed(4, (0..10).collect(), work).await.unwrap();
        assert_eq!((outcome.done.iter().sum::<u32>(), outcome.failures.len()), (42, 1));
        assert_eq!(outcome.failures, ["three"]);
    }

    #[tokio::test]
    async fn the_time_of_an_item_counts_from_when_it_was_due() {
        // No item is done before the last one has started, so the first one waits for all that were
        // due after it.
        let all_are_there = Arc::new(tokio::sync::Barrier::new(5));
        let work = |_| {
            let all_are_there = Arc::clone(&all_are_there);
            async move {
                all_are_there.wait().await;
                Ok(())
            }
        };
        let outcome = open(100.0, vec![(); 5], work).await.unwrap();
        assert_eq!((outcome.done.len(), outcome.failures.len()), (5, 0));
        assert!(outcome.times.at(1.0) >= 40.0, "the first waited for only {} ms", outcome.times.at(1.0));
    }
}
