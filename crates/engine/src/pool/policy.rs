//! How many paused forks each template should have: arithmetic without a clock or a VM.

use std::time::Duration;

/// Limits on the paused forks of one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The target for a template in use, at least, if memory allows.
    pub floor: usize,
    /// The target, at most. Not below the floor.
    pub ceiling: usize,
    /// The target is the number of forks that executions took in about this time.
    pub window: Duration,
    /// The target is 0 for a template without requests for this long.
    pub idle: Duration,
}

/// The rate at which executions take forks of a template. Times are monotonic, since an origin that the caller
/// chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Takes, weighted by their age.
    level: f64,
    last: Option<Duration>,
}

impl Demand {
    /// The level decays by a factor of e in each window; at a steady rate it is the number of takes in one window.
    fn level(&self, now: Duration, window: Duration) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let age = now.saturating_sub(last).as_secs_f64();
        self.level * (-age / window.as_secs_f64().max(1e-3)).exp()
    }

    /// Counts a take, also one that found no fork.
    pub fn take(&mut self, now: Duration, bounds: &Bounds) {
        self.level = self.level(now, bounds.window) + 1.0;
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
    }

    /// Counts as a use without a take, for a template that was built ahead of demand.
    pub fn touch(&mut self, now: Duration, bounds: &Bounds) {
        self.level = self.level(now, bounds.window);
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
    }

    /// The time of the last use.
    pub fn last_use(&self) -> Option<Duration> {
        self.last
    }

    /// The number of forks that should be ready now, before memory limits.
    pub fn target(&self, now: Duration, bounds: &Bounds) -> usize {
        let Some(last) = self.last else { return 0 };
        if now.saturating_sub(last) >= bounds.idle {
            return 0;
        }
        // A float to integer cast saturates, and the ceiling bounds it.
        let wanted = self.level(now, bounds.window).ceil() as usize;
        wanted.max(bounds.floor).min(bounds.ceiling)
    }
}

/// The demand and cost of one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// [`Demand::target`].
    pub target: usize,
    /// Private memory of a paused fork in KiB, measured or estimated.
    pub fork_kib: u64,
    /// [`Demand::last_use`].
    pub last_use: Option<Duration>,
}

/// The number of forks of each template so that all fit into `budget_kib`: one each in rotation, the most recently
/// used template first. A template with much demand therefore leaves every other one its first fork.
pub fn share(wishes: &[Wish], budget_kib: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(wishes[index].last_use));
    let mut given = vec![0; wishes.len()];
    let mut left = budget_kib;
    loop {
        let before = left;
        let mut any = false;
        for &index in &order {
            let wish = &wishes[index];
            // The target bounds the forks that take no memory at all.
            if given[index] < wish.target && wish.fork_kib <= left {
                given[index] += 1;
                left -= wish.fork_kib;
                any = true;
            }
        }
        debug_assert!(left <= before);
        if !any {
            return given;
        }
    }
}

/// The change for one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Make this many forks.
    Make(usize),
    /// Stop this many forks.
    Drop(usize),
}

/// The change from `ready` to `given` forks. A surplus of one fork stays, so that a demand between two numbers does
/// not make and stop the same fork repeatedly. It goes if the target is 0 or memory limits `given`.
pub fn step(ready: usize, given: usize, target: usize) -> Step {
    match ready.cmp(&given) {
        std::cmp::Ordering::Less => Step::Make(given - ready),
        std::cmp::Ordering::Equal => Step::Keep,
        std::cmp::Ordering::Greater if ready == given + 1 && given == target && given > 0 => {
            Step::Keep
        }
        std::cmp::Ordering::Greater => Step::Drop(ready - given),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        floor: 2,
        ceiling: 16,
        window: Duration::from_secs(2),
        idle: Duration::from_secs(600),
    };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_template_that_was_never_used_has_no_forks() {
        assert_eq!(Demand::default().target(s(5), &BOUNDS), 0);
    }

    #[test]
    fn one_use_brings_the_floor_and_idle_time_brings_zero() {
        let mut demand = Demand::default();
        demand.take(s(1), &BOUNDS);
        assert_eq!(demand.target(s(1), &BOUNDS), 2);
        assert_eq!(demand.target(s(600), &BOUNDS), 2);
        assert_eq!(demand.target(s(601), &BOUNDS), 0);
    }

    #[test]
    fn a_template_that_was_built_ahead_has_the_floor() {
        let mut demand = Demand::default();
        demand.touch(s(1), &BOUNDS);
        assert_eq!(demand.target(s(2), &BOUNDS), 2);
    }

    #[test]
    fn a_steady_rate_is_met_with_the_takes_of_a_window() {
        let mut demand = Demand::default();
        for take in 0..100 {
            demand.take(Duration::from_millis(250 * take), &BOUNDS);
        }
        // Four a second, two seconds; the sum of the decaying takes is a little above.
        assert_eq!(demand.target(Duration::from_millis(250 * 99), &BOUNDS), 9);
        assert_eq!(demand.target(s(40), &BOUNDS), 2, "and shrinks to the floor");
    }

    #[test]
    fn a_burst_stops_at_the_ceiling() {
        let mut demand = Demand::default();
        (0..1000).for_each(|_| demand.take(s(1), &BOUNDS));
        assert_eq!(demand.target(s(1), &BOUNDS), 16);
    }

    #[test]
    fn a_busy_template_leaves_the_others_their_first_fork() {
        let wish = |target, last_use| Wish {
            target,
            fork_kib: 10,
            last_use: Some(s(last_use)),
        };
        let wishes = [wish(2, 1), wish(16, 9), wish(2, 5)];
        assert_eq!(share(&wishes, 45), [1, 2, 1]);
        assert_eq!(share(&wishes, 20), [0, 1, 1], "the latest used first");
        assert_eq!(share(&wishes, 65), [2, 2, 2], "and what is left is used");
    }

    #[test]
    fn a_surplus_of_one_stays_while_memory_allows() {
        assert_eq!(step(3, 2, 2), Step::Keep);
        assert_eq!(step(4, 2, 2), Step::Drop(2));
        assert_eq!(step(3, 2, 5), Step::Drop(1));
        assert_eq!(step(1, 0, 0), Step::Drop(1));
        assert_eq!(step(1, 4, 4), Step::Make(3));
    }

    fn wishes() -> impl Strategy<Value = Vec<Wish>> {
        let wish = (0..20_usize, 0..5000_u64, proptest::option::of(0..100_u64));
        let wish = wish.prop_map(|(target, fork_kib, last_use)| Wish {
            target,
            fork_kib,
            last_use: last_use.map(s),
        });
        proptest::collection::vec(wish, 0..8)
    }

    fn cost(wishes: &[Wish], given: &[usize]) -> u64 {
        let forks = wishes.iter().zip(given);
        forks
            .map(|(wish, given)| wish.fork_kib * *given as u64)
            .sum()
    }

    proptest! {
        #[test]
        fn the_budget_and_the_targets_are_never_exceeded(wishes in wishes(), budget in 0..50_000_u64) {
            let given = share(&wishes, budget);
            let used: u64 = cost(&wishes, &given);
            prop_assert!(used <= budget);
            prop_assert!(wishes.iter().zip(&given).all(|(w, g)| *g <= w.target));
        }

        #[test]
        fn nothing_that_still_fits_is_held_back(wishes in wishes(), budget in 0..50_000_u64) {
            let given = share(&wishes, budget);
            let used: u64 = cost(&wishes, &given);
            for (wish, given) in wishes.iter().zip(&given) {
                prop_assert!(*given == wish.target || wish.fork_kib > budget - used);
            }
        }

        #[test]
        fn a_target_is_none_or_within_the_bounds(
            mut takes in proptest::collection::vec(0..100_000_u64, 1..50),
            after in 0..2_000_000_u64,
        ) {
            takes.sort_unstable();
            let mut demand = Demand::default();
            takes.iter().for_each(|ms| demand.take(Duration::from_millis(*ms), &BOUNDS));
            let now = Duration::from_millis(takes[takes.len() - 1] + after);
            let target = demand.target(now, &BOUNDS);
            prop_assert!(target == 0 || (BOUNDS.floor..=BOUNDS.ceiling).contains(&target));
            prop_assert_eq!(target == 0, after >= 600_000);
        }
    }
}
