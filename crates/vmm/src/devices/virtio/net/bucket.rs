//! A token bucket.

const NANOS: u64 = 1_000_000_000;

/// Tokens that refill at a constant rate, up to those of one second. Times are nanoseconds of a monotonic clock.
///
/// A cost may exceed the tokens that are left: the bucket then owes the difference. So a frame of any size passes
/// eventually, and the average rate holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    per_second: u64,
    /// Negative if the bucket owes tokens.
    tokens: i64,
    /// The time up to which `tokens` are filled.
    filled: u64,
}

impl Bucket {
    /// A full bucket; `None` if the rate is 0, which is no limit.
    pub fn new(per_second: u64, now: u64) -> Option<Self> {
        // So that one second of tokens fits an i64.
        let per_second = per_second.min(1 << 62);
        (per_second > 0).then_some(Self {
            per_second,
            tokens: per_second as i64,
            filled: now,
        })
    }

    fn refill(&mut self, now: u64) {
        let passed = now.saturating_sub(self.filled);
        if passed >= NANOS && self.tokens >= 0 {
            self.tokens = self.per_second as i64;
            self.filled = now;
            return;
        }
        let gained = u128::from(passed) * u128::from(self.per_second) / u128::from(NANOS);
        if gained == 0 {
            return;
        }
        let full = self.per_second as i64;
        let tokens = i128::from(self.tokens) + gained as i128;
        if tokens >= i128::from(full) {
            self.tokens = full;
            self.filled = now;
            return;
        }
        self.tokens = tokens as i64;
        // The remainder of the division stays for the next refill.
        let used = gained * u128::from(NANOS) / u128::from(self.per_second);
        self.filled += used as u64;
    }

    /// True if there is no token without a refill.
    pub fn is_empty(&self) -> bool {
        self.tokens <= 0
    }

    /// Nanoseconds until a cost may be taken; 0 if there is a token.
    pub fn wait(&mut self, now: u64) -> u64 {
        self.refill(now);
        if !self.is_empty() {
            return 0;
        }
        let missing = self.tokens.unsigned_abs() + 1;
        let wait = u128::from(missing) * u128::from(NANOS) / u128::from(self.per_second) + 1;
        u64::try_from(wait).unwrap_or(u64::MAX)
    }

    /// Takes `cost` tokens, after [`Bucket::wait`] has returned 0.
    pub fn take(&mut self, cost: u64) {
        self.tokens = self.tokens.saturating_sub_unsigned(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of single tokens that the bucket gives at `now`.
    fn drain(bucket: &mut Bucket, now: u64) -> u64 {
        let mut taken = 0;
        while bucket.wait(now) == 0 {
            bucket.take(1);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        assert!(Bucket::new(0, 5).is_none());
    }

    #[test]
    fn a_bucket_holds_the_tokens_of_one_second() {
        let mut bucket = Bucket::new(100, 0).unwrap();
        assert_eq!(drain(&mut bucket, 0), 100);
        assert_eq!(drain(&mut bucket, 50 * NANOS), 100);
    }

    #[test]
    fn tokens_return_at_the_rate() {
        let mut bucket = Bucket::new(1000, 0).unwrap();
        drain(&mut bucket, 0);
        let taken: u64 = (1..=10_000)
            .map(|step| drain(&mut bucket, step * 300_007))
            .sum();
        assert_eq!(taken, 3000);
    }

    #[test]
    fn a_cost_above_the_bucket_is_owed() {
        let mut bucket = Bucket::new(10, 0).unwrap();
        assert_eq!(bucket.wait(0), 0);
        bucket.take(35);
        let wait = bucket.wait(0);
        assert!(wait > 2 * NANOS && wait < 3 * NANOS, "{wait}");
        assert_ne!(bucket.wait(wait - NANOS / 10), 0);
        assert_eq!(bucket.wait(wait), 0);
    }

    #[test]
    fn a_debt_of_seconds_is_not_forgiven() {
        let mut bucket = Bucket::new(10, 0).unwrap();
        bucket.take(100);
        assert_ne!(bucket.wait(8 * NANOS), 0);
        assert_eq!(bucket.wait(10 * NANOS), 0);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let mut bucket = Bucket::new(u64::MAX, 7).unwrap();
        bucket.take(1 << 62);
        assert_ne!(bucket.wait(7), 0);
        assert_ne!(bucket.wait(3), 0);
    }
}
