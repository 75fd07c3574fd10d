//! Pulls of one image, over and over, while something else happens.

use super::fixture::TIMEOUT;
use crate::client::Registry;
use crate::push::Image;
use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Pulls that continue until they are stopped.
#[derive(Default)]
pub struct SteadyPulls {
    stop: AtomicBool,
    done: AtomicUsize,
    retried: AtomicUsize,
}

impl SteadyPulls {
    /// Pulls an image by its tag over and over, as real clients do: retries a request that was
    /// refused temporarily, or whose connection was closed just when it was sent. Ends with the
    /// first pull that still fails or has other bytes.
    ///
    /// # Errors
    /// If a pull failed.
    pub async fn run(&self, registry: &Registry, repository: &str, tag: &str, image: &Image) -> Result<()> {
        const TRIES: usize = 3;
        while !self.stop.load(Ordering::Relaxed) {
            let mut tries = 1;
            while let Err(error) = registry.retrying(TIMEOUT).pull_image(repository, tag, image).await {
                let cut_short = error.chain().any(|cause| cause.is::<hyper::Error>());
                if !cut_short || tries == TRIES {
                    return Err(error.context(format!("a pull failed at attempt {tries}")));
                }
                tries += 1;
                self.retried.fetch_add(1, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        println!(
            "{} pulls succeeded, {} after a retry",
            self.done.load(Ordering::Relaxed),
            self.retried.load(Ordering::Relaxed)
        );
        Ok(())
    }

    /// Runs `work` while pulls continue, then stops them.
    ///
    /// # Errors
    /// If either fails.
    pub async fn during<T>(
        &self,
        pulls: impl Future<Output = Result<()>>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let work = async {
            let outcome = work.await;
            self.stop.store(true, Ordering::Relaxed);
            outcome
        };
        let ((), outcome) = tokio::try_join!(pulls, work)?;
        ensure!(self.done.load(Ordering::Relaxed) > 0, "no pull completed");
        Ok(outcome)
    }
}
