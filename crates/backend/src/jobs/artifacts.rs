//! Artifacts that the agent sends after the run stage. The guest is not trusted: it may name any path and send any number of
//! bytes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloude_engine::languages::check_path;
use cloude_protocol::agent::Artifacts as Wanted;
use cloude_protocol::api::Artifact;

/// The artifacts of an execution.
#[derive(Debug, Default)]
pub struct Artifacts {
    /// In the order of their paths.
    pub list: Vec<Artifact>,
    /// Their contents, in the same order.
    pub contents: Vec<Bytes>,
    /// Files that were left out.
    pub dropped: u64,
    /// From the first one until the result.
    pub time: Duration,
}

/// Collects artifacts within the limits of the request.
#[derive(Debug)]
pub struct Collector {
    bytes_left: u64,
    files_left: u32,
    paths: HashSet<String>,
    files: Vec<(Artifact, Vec<u8>)>,
    /// The last file is taken.
    takes: bool,
    dropped: u64,
    since: Option<Instant>,
}

impl Collector {
    /// `wanted`: the limits; without it every file is left out.
    pub fn new(wanted: Option<&Wanted>) -> Self {
        Collector {
            bytes_left: wanted.map_or(0, |wanted| wanted.max_bytes),
            files_left: wanted.map_or(0, |wanted| wanted.max_files),
            paths: HashSet::new(),
            files: Vec::new(),
            takes: false,
            dropped: 0,
            since: None,
        }
    }

    /// A file begins. `bytes`: its size.
    pub fn begin(&mut self, path: String, bytes: u64, mode: u32) {
        self.since.get_or_insert_with(Instant::now);
        self.takes = self.files_left > 0
            && bytes <= self.bytes_left
            && check_path(&path).is_ok()
            && self.paths.insert(path.clone());
        if !self.takes {
            self.dropped += 1;
            return;
        }
        self.files_left -= 1;
        let artifact = Artifact {
            path,
            bytes: 0,
            mode: mode & 0o7777,
        };
        self.files.push((artifact, Vec::new()));
    }

    /// The next bytes of the last file. A file that is longer than announced ends where the limit of all files is reached.
    pub fn append(&mut self, data: &[u8]) {
        let Some((artifact, content)) = self.files.last_mut().filter(|_| self.takes) else {
            return;
        };
        let left = usize::try_from(self.bytes_left).unwrap_or(usize::MAX);
        let data = &data[..data.len().min(left)];
        content.extend_from_slice(data);
        artifact.bytes += data.len() as u64;
        self.bytes_left -= data.len() as u64;
    }

    /// All files.
    pub fn finish(mut self) -> Artifacts {
        self.files
            .sort_by(|(one, _), (other, _)| one.path.cmp(&other.path));
        let (list, contents) = self.files.into_iter().unzip::<_, _, _, Vec<_>>();
        Artifacts {
            list,
            contents: contents.into_iter().map(Bytes::from).collect(),
            dropped: self.dropped,
            time: self.since.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector() -> Collector {
        Collector::new(Some(&Wanted {
            patterns: Vec::new(),
            max_bytes: 10,
            max_files: 2,
        }))
    }

    #[test]
    fn files_are_listed_by_path_with_the_bytes_that_came() {
        let mut collector = collector();
        collector.begin("b".into(), 5, 0o100_644);
        collector.append(b"12");
        collector.append(b"3");
        collector.begin("a/x".into(), 0, 0o755);

        let artifacts = collector.finish();

        let listed: Vec<_> = artifacts
            .list
            .iter()
            .map(|it| (&*it.path, it.bytes, it.mode))
            .collect();
        assert_eq!(listed, [("a/x", 0, 0o755), ("b", 3, 0o644)]);
        assert_eq!(artifacts.contents, ["", "123"]);
    }

    #[test]
    fn a_hostile_guest_cannot_exceed_the_limits() {
        let mut collector = collector();
        for path in ["/etc/passwd", "../x", "a/../../x", ""] {
            collector.begin(path.into(), 1, 0o644);
            collector.append(b"bad");
        }
        collector.begin("large".into(), 11, 0o644);
        collector.begin("a".into(), 1, 0o644);
        collector.append(&[b'x'; 100]);
        collector.begin("a".into(), 0, 0o644);
        collector.begin("b".into(), 0, 0o644);
        collector.append(b"no room");
        collector.begin("c".into(), 0, 0o644);

        let artifacts = collector.finish();

        assert_eq!(artifacts.contents, ["xxxxxxxxxx", ""]);
        assert_eq!(artifacts.dropped, 7);
    }
}
