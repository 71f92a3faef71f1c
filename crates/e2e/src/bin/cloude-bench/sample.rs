//! Statistics over samples, and the time and peak memory of child processes.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The samples of one quantity.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// A number that the log of `clouded` has of each fork: the workers count, and `clouded` logs.
    pub fn of_forks(log: &str, field: &str) -> Self {
        let field = format!("{field}=");
        let forks = log
            .lines()
            .filter(|line| line.contains("forked a template"));
        let number = |line: &str| {
            let rest = line.split(&field).nth(1)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        Samples(forks.filter_map(number).collect())
    }

    /// The median; for an even count the mean of the two middle samples.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(!sorted.is_empty(), "nothing was measured");
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        }
    }

    /// The percentile by nearest rank; `percent` is above 0 and at most 100.
    pub fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(!sorted.is_empty(), "nothing was measured");
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    /// The largest sample.
    pub fn largest(&self) -> f64 {
        self.0.iter().copied().fold(f64::MIN, f64::max)
    }
}

/// Wall time of a command, and the peak resident memory of its largest process.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub time: Duration,
    pub peak_bytes: u64,
}

/// Runs commands one after the other and returns the sum of their times and the largest peak.
pub fn cost(commands: Vec<Command>) -> Cost {
    let mut total = Cost {
        time: Duration::ZERO,
        peak_bytes: 0,
    };
    for mut command in commands {
        let start = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}: run tools/setup"));
        let (status, peak_bytes) = wait(child);
        assert!(status == 0, "{command:?} failed");
        total.time += start.elapsed();
        total.peak_bytes = total.peak_bytes.max(peak_bytes);
    }
    total
}

/// Waits for a child and returns its status and peak memory; `ru_maxrss` of getrusage(2) is in KiB.
fn wait(child: Child) -> (i32, u64) {
    let mut status = 0;
    // SAFETY: `rusage` is plain data, for which all zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that outlive the call; the child was not waited for.
    let id = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    assert!(
        id == child.id() as i32,
        "wait4: {}",
        std::io::Error::last_os_error()
    );
    (status, usage.ru_maxrss as u64 * 1024)
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let samples = Samples((1..=200).rev().map(f64::from).collect());
        assert_eq!(samples.percentile(99.0), 198.0);
        assert_eq!(samples.percentile(100.0), 200.0);
        assert_eq!(Samples(vec![7.0]).percentile(50.0), 7.0);
    }

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(Samples(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
    }
}
