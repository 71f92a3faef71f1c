//! Applies the entries of one layer.

use std::io::Read;

use cloude_protocol::boot;

use super::node::{IMPLICIT, Meta, Object};
use super::store::NodeId;
use super::{Tree, TreeError};
use crate::layer::{Compression, Context, Entry, EntryKind, Layer, display_path};
use crate::limits::LimitExceeded;

/// Prefix of whiteouts (OCI image specification, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// The marker of an opaque directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Symlinks that are followed in one path, as in Linux (`MAXSYMLINKS`).
const MAX_SYMLINKS: u32 = 40;
/// The name of the entry that ends the archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// `S_ISGID` of stat(2).
const SET_GROUP_ID: u16 = 0o2000;

/// A resolved path of a directory, of which the last components may not exist.
struct ResolvedDir {
    /// Components from the root, each with its inode if it exists.
    steps: Vec<(Box<[u8]>, Option<NodeId>)>,
}

impl ResolvedDir {
    /// The directory's inode; none if it does not exist.
    fn node(&self) -> Option<NodeId> {
        self.steps
            .last()
            .map_or(Some(NodeId::ROOT), |(_, node)| *node)
    }
}

enum Problem {
    Text(String),
    Limit(LimitExceeded),
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Problem::Text(text.to_owned())
    }
}

impl From<LimitExceeded> for Problem {
    fn from(limit: LimitExceeded) -> Self {
        Problem::Limit(limit)
    }
}

/// Splits a cleaned path into its directory and its last component, empty for the root.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

impl Tree {
    /// Reads a layer and merges it. To read layers in parallel, call [`Layer::read`] on threads and [`Tree::apply`] in
    /// order.
    pub fn apply_layer(
        &mut self,
        reader: impl Read + Send,
        compression: Compression,
        context: &Context,
    ) -> Result<(), TreeError> {
        let layer =
            Layer::read(reader, compression, context).map_err(|source| TreeError::Layer {
                layer: self.layers + 1,
                source,
            })?;
        self.apply(layer)
    }

    /// Merges a layer. Call it from the bottom layer to the top.
    pub fn apply(&mut self, layer: Layer) -> Result<(), TreeError> {
        self.layers += 1;
        self.warnings.add(&layer.warnings);
        for entry in layer.entries {
            let path = entry.path.clone();
            self.apply_entry(entry).map_err(|problem| match problem {
                Problem::Limit(limit) => TreeError::Limit(limit),
                Problem::Text(problem) => TreeError::Entry {
                    layer: self.layers,
                    path: display_path(&path),
                    problem,
                },
            })?;
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: Entry) -> Result<(), Problem> {
        let (directory, name) = split(&entry.path);
        let place = self.resolve(directory)?;
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&place, name);
        }
        self.check_place(&place, name)?;
        if name.is_empty() {
            return self.root(entry);
        }
        self.put(place, entry)
    }

    fn look_up(&mut self, count: u64) -> Result<(), LimitExceeded> {
        self.lookups += count;
        let limit = self.budget.limits().max_lookups;
        if self.lookups > limit {
            Err(LimitExceeded::Lookups { limit })
        } else {
            Ok(())
        }
    }

    /// Resolves a directory's path within the tree, following symlinks. Components that do not exist are kept as they
    /// are.
    fn resolve(&mut self, path: &[u8]) -> Result<ResolvedDir, Problem> {
        let mut place = ResolvedDir { steps: Vec::new() };
        let mut symlinks = 0;
        // Components to resolve, the next one last.
        let mut pending: Vec<Box<[u8]>> = Vec::new();
        let push = |pending: &mut Vec<Box<[u8]>>, path: &[u8]| {
            pending.extend(path.rsplit(|byte| *byte == b'/').map(Box::from));
        };
        push(&mut pending, path);
        while let Some(part) = pending.pop() {
            self.look_up(1)?;
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    place.steps.pop();
                    continue;
                }
                _ => {}
            }
            let node = place
                .node()
                .and_then(|directory| self.nodes.child(directory, &part));
            match node.map(|node| self.nodes.object(node)) {
                Some(Object::Symlink(target)) => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(
                            "its path contains more than 40 symlinks, which is a loop".into()
                        );
                    }
                    if target.starts_with(b"/") {
                        place.steps.clear();
                    }
                    push(&mut pending, target);
                }
                _ => place.steps.push((part, node)),
            }
        }
        Ok(place)
    }

    /// Checks the resolved path of an entry.
    fn check_place(&self, place: &ResolvedDir, name: &[u8]) -> Result<(), Problem> {
        let first = place.steps.first().map_or(name, |(first, _)| &**first);
        if first == boot::DIR.trim_start_matches('/').as_bytes() {
            return Err("/.cloude is reserved: remove it from the image".into());
        }
        // Also a directory of this name, which the path of a file in it makes.
        if first == TRAILER {
            return Err("an initramfs cannot hold a file of this name, which marks its end: rename it in the image".into());
        }
        // Symlink targets can contain longer names than tar headers.
        let limits = self.budget.limits();
        let names = place.steps.iter().map(|(name, _)| name.len() as u64);
        let length = names.map(|length| length + 1).sum::<u64>() + name.len() as u64;
        let limit = limits.max_path_bytes.min(4095);
        if length > limit {
            let start = place.steps.first().map_or(name, |(first, _)| first);
            return Err(LimitExceeded::NameBytes {
                what: "a path with its symlinks followed",
                length,
                limit,
                field: "max_path_bytes",
                start: display_path(start),
            }
            .into());
        }
        let long = place
            .steps
            .iter()
            .map(|(name, _)| &**name)
            .find(|name| name.len() as u64 > limits.max_name_bytes.min(255));
        if let Some(name) = long {
            return Err(LimitExceeded::NameBytes {
                what: "a file name in a symlink's target",
                length: name.len() as u64,
                limit: limits.max_name_bytes.min(255),
                field: "max_name_bytes",
                start: display_path(&name[..name.len().min(64)]),
            }
            .into());
        }
        Ok(())
    }

    /// Applies an entry for the root.
    fn root(&mut self, entry: Entry) -> Result<(), Problem> {
        if !matches!(entry.kind, EntryKind::Directory) {
            return Err("it would make the root something other than a directory".into());
        }
        self.nodes.set_meta(NodeId::ROOT, meta(&entry));
        Ok(())
    }

    /// Creates the missing directories of a resolved path. Returns the last one.
    fn make(&mut self, place: ResolvedDir) -> Result<NodeId, Problem> {
        let mut directory = NodeId::ROOT;
        for (name, _) in place.steps {
            directory = match self.nodes.child(directory, &name) {
                Some(node) if self.nodes.is_directory(node) => node,
                Some(_) => {
                    let name = display_path(&name);
                    return Err(Problem::Text(format!(
                        "its parent `{name}` is not a directory"
                    )));
                }
                None => {
                    self.check_count()?;
                    let meta = implicit(self.nodes.meta(directory));
                    self.nodes
                        .insert(directory, &name, meta, Object::Directory, self.layers)
                }
            };
        }
        Ok(directory)
    }

    fn check_count(&self) -> Result<(), LimitExceeded> {
        let limit = self.budget.limits().max_entries;
        if self.nodes.count() >= limit {
            Err(LimitExceeded::Entries { limit })
        } else {
            Ok(())
        }
    }

    fn touch(&mut self, place: &[Box<[u8]>], name: &[u8]) {
        let mut directory = NodeId::ROOT;
        for part in place {
            self.nodes.touch(directory, part, self.layers);
            match self.nodes.child(directory, part) {
                Some(node) => directory = node,
                None => return,
            }
        }
        self.nodes.touch(directory, name, self.layers);
    }

    /// Adds an entry, in place of an existing object.
    fn put(&mut self, place: ResolvedDir, entry: Entry) -> Result<(), Problem> {
        let (_, name) = split(&entry.path);
        let parents: Vec<Box<[u8]>> = place.steps.iter().map(|(name, _)| name.clone()).collect();
        let directory = self.make(place)?;
        let meta = meta(&entry);
        let existing = self.nodes.child(directory, name);
        let is_directory = matches!(entry.kind, EntryKind::Directory);
        match existing {
            Some(node) if is_directory && self.nodes.is_directory(node) => {
                self.nodes.set_meta(node, meta);
                self.touch(&parents, name);
                return Ok(());
            }
            Some(_) => {
                let removed = self.nodes.remove(directory, name);
                self.look_up(removed)?;
            }
            None => {}
        }
        let object = match entry.kind {
            EntryKind::Directory => Object::Directory,
            EntryKind::File(content) => Object::File(content),
            EntryKind::Symlink(target) => Object::Symlink(target.into()),
            EntryKind::Device(device) => Object::Device(device),
            EntryKind::Fifo => Object::Fifo,
            EntryKind::Hardlink(target) if target == entry.path => {
                return Err("it is a hard link to itself".into());
            }
            EntryKind::Hardlink(target) => {
                let node = self.hardlink_target(&target)?;
                self.nodes.name(directory, name, node, self.layers);
                self.touch(&parents, name);
                return Ok(());
            }
        };
        self.check_count()?;
        self.nodes
            .insert(directory, name, meta, object, self.layers);
        self.touch(&parents, name);
        Ok(())
    }

    /// The inode that a hard link names, in the tree so far. The metadata of the link's entry is ignored.
    fn hardlink_target(&mut self, target: &[u8]) -> Result<NodeId, Problem> {
        let (directory, name) = split(target);
        let place = self.resolve(directory)?;
        let node = place
            .node()
            .and_then(|directory| self.nodes.child(directory, name));
        let shown = || display_path(target);
        match node {
            None => Err(Problem::Text(format!(
                "it is a hard link to `{}`, which does not exist",
                shown()
            ))),
            Some(node) if self.nodes.is_directory(node) => Err(Problem::Text(format!(
                "it is a hard link to `{}`, which is a directory",
                shown()
            ))),
            Some(node) => Ok(node),
        }
    }

    /// Applies a whiteout: removes objects of lower layers at a name, or below a directory.
    fn whiteout(&mut self, place: &ResolvedDir, marker: &[u8]) -> Result<(), Problem> {
        let directory = place.node();
        if marker == OPAQUE {
            return match directory {
                Some(directory) => self.clear(directory),
                None => Ok(()),
            };
        }
        let name = &marker[WHITEOUT.len()..];
        if matches!(name, b"" | b"." | b"..") {
            return Err("it is a whiteout of an empty name, of `.` or of `..`".into());
        }
        let Some((directory, link)) =
            directory.and_then(|directory| Some((directory, self.nodes.link(directory, name)?)))
        else {
            return Ok(());
        };
        if link.layer == self.layers {
            return self.clear(link.node);
        }
        let removed = self.nodes.remove(directory, name);
        self.look_up(removed)?;
        Ok(())
    }

    /// Removes objects of lower layers below a directory.
    fn clear(&mut self, directory: NodeId) -> Result<(), Problem> {
        let mut pending = vec![directory];
        while let Some(directory) = pending.pop() {
            let mut stale: Vec<Box<[u8]>> = Vec::new();
            let mut count = 0;
            for (name, link) in self.nodes.children(directory) {
                count += 1;
                if link.layer == self.layers {
                    pending.push(link.node);
                } else {
                    stale.push(name.into());
                }
            }
            self.look_up(count)?;
            for name in stale {
                let removed = self.nodes.remove(directory, &name);
                self.look_up(removed)?;
            }
        }
        Ok(())
    }
}

/// The metadata of a directory without an entry. It inherits a set-group-ID bit and the group, as with mkdir(2).
fn implicit(parent: Meta) -> Meta {
    match parent.mode & SET_GROUP_ID {
        0 => IMPLICIT,
        bit => Meta {
            mode: IMPLICIT.mode | bit,
            gid: parent.gid,
            ..IMPLICIT
        },
    }
}

fn meta(entry: &Entry) -> Meta {
    Meta {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: Some(entry.mtime),
    }
}
