//! The output limit of one stream: the first half is sent as it is written, the last half at the end.

/// Keeps the head and the tail of a stream, in chunks that split no valid UTF-8 sequence.
#[derive(Debug)]
pub struct HeadTail {
    head_left: u64,
    /// The start of an incomplete UTF-8 sequence of the head, at most 3 bytes.
    carry: Vec<u8>,
    tail: Ring,
    /// Bytes written so far.
    pub total: u64,
}

/// The end of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    /// Bytes dropped before `tail`.
    pub dropped: u64,
    /// The stream's last bytes.
    pub tail: Vec<u8>,
}

impl HeadTail {
    /// Keeps `limit` bytes, of which the tail is at most `tail_max`: it stays in memory.
    pub fn new(limit: u64, tail_max: u64) -> Self {
        let head = limit.div_ceil(2);
        let tail = (limit - head).min(tail_max);
        HeadTail {
            head_left: head,
            carry: Vec::new(),
            tail: Ring::new(usize::try_from(tail).unwrap_or(usize::MAX)),
            total: 0,
        }
    }

    /// Keeps the first `limit` bytes.
    pub fn head_only(limit: u64) -> Self {
        HeadTail {
            head_left: limit,
            carry: Vec::new(),
            tail: Ring::new(0),
            total: 0,
        }
    }

    /// Takes the bytes of `chunk` and leaves those in it that are to be sent now, possibly none.
    pub fn push(&mut self, chunk: &mut Vec<u8>) {
        self.total += chunk.len() as u64;
        if self.head_left == 0 {
            self.tail.push(chunk);
            chunk.clear();
            return;
        }
        let head = usize::try_from(self.head_left)
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        self.head_left -= head as u64;
        self.tail.push(&chunk[head..]);
        chunk.truncate(head);
        if !self.carry.is_empty() {
            chunk.splice(..0, self.carry.drain(..));
        }
        let complete = chunk.len() - incomplete_suffix(chunk);
        self.carry.extend_from_slice(&chunk[complete..]);
        chunk.truncate(complete);
    }

    /// Ends the stream. If bytes were dropped, the parts of characters on both sides of the gap are dropped too.
    pub fn finish(self) -> Ending {
        let mut tail = self.tail.bytes;
        tail.rotate_left(self.tail.start);
        let mut dropped = self.tail.overwritten;
        if dropped == 0 {
            let mut all = self.carry;
            all.append(&mut tail);
            return Ending {
                dropped: 0,
                tail: all,
            };
        }
        dropped += self.carry.len() as u64;
        let continuations = tail
            .iter()
            .take(3)
            .take_while(|byte| **byte & 0xc0 == 0x80)
            .count();
        tail.drain(..continuations);
        Ending {
            dropped: dropped + continuations as u64,
            tail,
        }
    }
}

/// The length of an incomplete UTF-8 sequence at the end of `bytes`.
fn incomplete_suffix(bytes: &[u8]) -> usize {
    for length in 1..=bytes.len().min(3) {
        let suffix = &bytes[bytes.len() - length..];
        // The first byte of a sequence; all before it are complete.
        if suffix[0] & 0xc0 != 0x80 {
            let open = std::str::from_utf8(suffix).is_err_and(|error| error.error_len().is_none());
            return if open { length } else { 0 };
        }
    }
    0
}

/// The last `capacity` bytes that were pushed. Allocates as it fills.
#[derive(Debug)]
struct Ring {
    bytes: Vec<u8>,
    capacity: usize,
    /// Index of the oldest byte, once `bytes` is full.
    start: usize,
    overwritten: u64,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Ring {
            bytes: Vec::new(),
            capacity,
            start: 0,
            overwritten: 0,
        }
    }

    fn push(&mut self, mut new: &[u8]) {
        if new.len() > self.capacity {
            let surplus = new.len() - self.capacity;
            self.overwritten += surplus as u64;
            new = &new[surplus..];
        }
        let room = (self.capacity - self.bytes.len()).min(new.len());
        self.grow(room);
        self.bytes.extend_from_slice(&new[..room]);
        let mut rest = &new[room..];
        self.overwritten += rest.len() as u64;
        while !rest.is_empty() {
            let length = (self.capacity - self.start).min(rest.len());
            self.bytes[self.start..self.start + length].copy_from_slice(&rest[..length]);
            self.start = (self.start + length) % self.capacity;
            rest = &rest[length..];
        }
    }

    /// Doubles the allocation, up to the capacity.
    fn grow(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let wanted = needed
                .max(self.bytes.capacity().saturating_mul(2))
                .min(self.capacity);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chunks that are sent while the stream is open, and its ending.
    fn run(limit: u64, writes: &[&[u8]]) -> (Vec<Vec<u8>>, Ending) {
        let mut stream = HeadTail::new(limit, u64::MAX);
        let mut sent = Vec::new();
        for write in writes {
            let mut chunk = write.to_vec();
            stream.push(&mut chunk);
            if !chunk.is_empty() {
                sent.push(chunk);
            }
        }
        let total = stream.total;
        let ending = stream.finish();
        let kept = sent.iter().map(Vec::len).sum::<usize>() + ending.tail.len();
        assert_eq!(
            total,
            kept as u64 + ending.dropped,
            "every byte is kept or counted"
        );
        (sent, ending)
    }

    #[test]
    fn output_within_the_limit_is_whole() {
        let (sent, ending) = run(10, &[b"abc", b"defg", b"hij"]);
        assert_eq!(sent, [b"abc".to_vec(), b"de".to_vec()]);
        assert_eq!(
            ending,
            Ending {
                dropped: 0,
                tail: b"fghij".to_vec()
            }
        );
    }

    #[test]
    fn past_the_limit_head_and_tail_stay() {
        let (sent, ending) = run(4, &[b"abcdefgh", b"i", b"jklmnopqrs"]);
        assert_eq!(sent, [b"ab".to_vec()]);
        assert_eq!(
            ending,
            Ending {
                dropped: 15,
                tail: b"rs".to_vec()
            }
        );
    }

    #[test]
    fn the_ring_wraps_at_every_offset() {
        for step in 1..9 {
            let all: Vec<u8> = (0..200).map(|n| b'a' + n % 26).collect();
            let writes: Vec<&[u8]> = all.chunks(step).collect();
            let (sent, ending) = run(14, &writes);
            assert_eq!(sent.concat(), all[..7]);
            assert_eq!(
                ending,
                Ending {
                    dropped: 186,
                    tail: all[193..].to_vec()
                }
            );
        }
    }

    #[test]
    fn a_limit_of_zero_drops_everything() {
        let (sent, ending) = run(0, &[b"abc"]);
        assert!(sent.is_empty());
        assert_eq!(
            ending,
            Ending {
                dropped: 3,
                tail: vec![]
            }
        );
    }

    #[test]
    fn a_character_written_in_pieces_is_sent_whole() {
        let (sent, ending) = run(100, &[b"a\xf0\x9f", b"\x98", b"\x80b"]);
        assert_eq!(sent, [b"a".to_vec(), "😀b".as_bytes().to_vec()]);
        assert_eq!(ending.tail, b"");
    }

    #[test]
    fn a_character_that_never_completes_is_sent_at_the_end() {
        let (sent, ending) = run(100, &[b"a\xe2\x82"]);
        assert_eq!(sent, [b"a".to_vec()]);
        assert_eq!(
            ending,
            Ending {
                dropped: 0,
                tail: b"\xe2\x82".to_vec()
            }
        );
    }

    #[test]
    fn a_character_across_the_middle_stays_whole() {
        let (sent, ending) = run(6, &["ab€x".as_bytes()]);
        assert_eq!(sent, [b"ab".to_vec()]);
        assert_eq!(
            ending,
            Ending {
                dropped: 0,
                tail: "€x".as_bytes().to_vec()
            }
        );
    }

    #[test]
    fn characters_cut_by_the_gap_are_dropped_whole() {
        let (sent, ending) = run(8, &["ab€€€€€€".as_bytes()]);
        assert_eq!(sent, [b"ab".to_vec()]);
        assert_eq!(
            ending,
            Ending {
                dropped: 15,
                tail: "€".as_bytes().to_vec()
            }
        );
    }

    #[test]
    fn invalid_bytes_are_not_held_back() {
        let (sent, _) = run(100, &[b"a\xff", b"\x80\x80\x80\x80"]);
        assert_eq!(sent, [b"a\xff".to_vec(), b"\x80\x80\x80\x80".to_vec()]);
    }

    #[test]
    fn head_only_keeps_the_first_bytes() {
        let mut stream = HeadTail::head_only(4);
        let mut chunk = "abc€rest".as_bytes().to_vec();

        stream.push(&mut chunk);

        assert_eq!(chunk, b"abc");
        let expected = Ending {
            dropped: 7,
            tail: vec![],
        };
        assert_eq!(stream.finish(), expected);
    }

    #[test]
    fn tail_max_bounds_the_tail() {
        let mut stream = HeadTail::new(1 << 40, 3);
        stream.head_left = 0;
        stream.push(&mut b"abcdef".to_vec());
        assert_eq!(
            stream.finish(),
            Ending {
                dropped: 3,
                tail: b"def".to_vec()
            }
        );
    }
}
