//! Counts requests for machines without a template. A template is built only for a machine that is asked for
//! repeatedly.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The largest number of machines that are counted, which bounds the memory that a client with ever new machines
/// can take.
const MAX_MACHINES: usize = 256;

/// The latest requests by template id. Times are monotonic, since an origin that the caller chooses.
#[derive(Debug)]
pub struct Interest {
    requests: usize,
    window: Duration,
    asked: HashMap<String, VecDeque<Duration>>,
}

impl Interest {
    /// A machine qualifies with `requests` within `window`.
    pub fn new(requests: usize, window: Duration) -> Self {
        Interest {
            requests,
            window,
            asked: HashMap::new(),
        }
    }

    /// Counts a request. True if the machine qualifies.
    pub fn ask(&mut self, id: &str, now: Duration) -> bool {
        let times = self.asked.entry(id.to_owned()).or_default();
        times.push_back(now);
        while times.len() > self.requests
            || times
                .front()
                .is_some_and(|first| now.saturating_sub(*first) > self.window)
        {
            times.pop_front();
        }
        let enough = times.len() >= self.requests;
        if self.asked.len() > MAX_MACHINES {
            self.forget_oldest();
        }
        enough
    }

    /// Forgets the requests for a template that now exists.
    pub fn forget(&mut self, id: &str) {
        self.asked.remove(id);
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .asked
            .iter()
            .min_by_key(|(_, times)| times.back().copied())
            .map(|(id, _)| id.clone());
        if let Some(id) = oldest {
            self.asked.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_third_request_within_the_window_is_enough() {
        let mut interest = Interest::new(3, s(60));
        assert!(!interest.ask("a", s(0)));
        assert!(!interest.ask("a", s(30)));
        assert!(interest.ask("a", s(60)));
    }

    #[test]
    fn requests_that_are_too_far_apart_never_are_enough() {
        let mut interest = Interest::new(3, s(60));
        assert!((0..100).all(|request| !interest.ask("a", s(31 * request))));
    }

    #[test]
    fn requests_for_other_machines_do_not_count() {
        let mut interest = Interest::new(2, s(60));
        assert!(!interest.ask("a", s(0)));
        assert!(!interest.ask("b", s(0)));
        assert!(interest.ask("a", s(1)));
    }

    #[test]
    fn ever_new_machines_are_forgotten_beyond_a_bound() {
        let mut interest = Interest::new(3, s(3600));
        for number in 0..10 * MAX_MACHINES as u64 {
            assert!(!interest.ask(&format!("machine {number}"), s(number)));
        }
        assert_eq!(interest.asked.len(), MAX_MACHINES);
    }
}
