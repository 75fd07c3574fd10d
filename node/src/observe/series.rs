//! The metrics of requests, without a label lookup per request: a table by route and method, whose
//! entries are created by the first request that needs them.

use super::Metrics;
use prometheus::{Histogram, IntCounter, IntCounterVec};
use std::sync::{Arc, OnceLock};

/// Number of statuses per route and method that are counted without a label lookup, more than
/// usually occur. Further ones are counted too, but slower.
const STATUSES: usize = 8;

/// The series of all routes and methods.
pub struct AllSeries {
    places: Vec<OnceLock<Arc<Series>>>,
    methods: usize,
}

/// The series of one route and method.
pub struct Series {
    /// The route, such as `blob`.
    pub route: &'static str,
    /// The method, such as `GET`.
    pub method: &'static str,
    seconds: Histogram,
    requests: IntCounterVec,
    /// By status, in the order of their first use.
    by_status: [OnceLock<(u16, IntCounter)>; STATUSES],
}

impl AllSeries {
    /// A table for this many routes and methods. Nothing is registered yet.
    pub fn new(routes: usize, methods: usize) -> AllSeries {
        AllSeries { places: (0..routes * methods).map(|_| OnceLock::new()).collect(), methods }
    }

    /// The series of a route and a method, each given as its index in the table and its label. For
    /// an index outside the table, the labels are looked up.
    pub fn of(&self, metrics: &Metrics, route: (usize, &'static str), method: (usize, &'static str)) -> Arc<Series> {
        let make = || Arc::new(Series::new(metrics, route.1, method.1));
        match self.places.get(route.0 * self.methods + method.0) {
            Some(place) => Arc::clone(place.get_or_init(make)),
            None => make(),
        }
    }
}

impl Series {
    /// The series of a route and a method.
    pub fn new(metrics: &Metrics, route: &'static str, method: &'static str) -> Series {
        Series {
            route,
            method,
            seconds: metrics.http.seconds.with_label_values(&[route, method]),
            requests: metrics.http.requests.clone(),
            by_status: Default::default(),
        }
    }

    /// Counts a request and its duration. `status` is 0 if the client disconnected before the
    /// response.
    pub fn count(&self, status: u16, seconds: f64) {
        self.seconds.observe(seconds);
        let known = self.by_status.iter().map(|place| place.get_or_init(|| (status, self.counter(status))));
        match known.into_iter().find(|(of, _)| *of == status) {
            Some((_, counter)) => counter.inc(),
            None => self.counter(status).inc(),
        }
    }

    fn counter(&self, status: u16) -> IntCounter {
        self.requests.with_label_values(&[self.route, self.method, &format!("{status:03}")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_counted_even_if_the_table_is_full() {
        let metrics = Metrics::new().unwrap();
        let series = Series::new(&metrics, "blob", "GET");
        for status in (200..).take(2 * STATUSES).chain([0, 200]) {
            series.count(status, 0.1);
        }
        let count = |status| metrics.http.requests.with_label_values(&["blob", "GET", status]).get();
        assert_eq!((count("000"), count("200"), count("201"), count("215")), (1, 2, 1, 1));
        assert_eq!(metrics.http.seconds.with_label_values(&["blob", "GET"]).get_sample_count(), 18);
    }

    #[test]
    fn an_entry_of_the_table_belongs_to_one_route_and_method() {
        let (metrics, table) = (Metrics::new().unwrap(), AllSeries::new(2, 2));
        let of = |route, method| table.of(&metrics, (route, ["a", "b"][route]), (method, ["GET", "PUT"][method]));
        for (route, method) in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 1)] {
            let series = of(route, method);
            assert_eq!((series.route, series.method), (["a", "b"][route], ["GET", "PUT"][method]));
        }
        assert!(Arc::ptr_eq(&of(1, 0), &of(1, 0)));
        assert_eq!(table.of(&metrics, (7, "c"), (0, "GET")).route, "c");
    }
}
