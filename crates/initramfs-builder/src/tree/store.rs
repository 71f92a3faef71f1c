//! The inodes of a tree, and the names of each directory.

use std::collections::BTreeMap;

use super::node::{IMPLICIT, Meta, Object};

/// Index of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub const ROOT: NodeId = NodeId(0);
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub node: NodeId,
    /// The last layer with an entry here or below; whiteouts of that layer keep it.
    pub layer: u32,
}

type Children = BTreeMap<Box<[u8]>, Link>;

#[derive(Debug)]
struct Node {
    meta: Meta,
    object: Object,
    /// Number of names.
    nlink: u32,
    /// Children of a directory.
    children: Children,
}

/// All inodes. An inode without names is freed, and its index reused.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Option<Node>>,
    free: Vec<NodeId>,
}

impl Nodes {
    pub fn new() -> Nodes {
        let root = Node {
            meta: IMPLICIT,
            object: Object::Directory,
            nlink: 1,
            children: Children::new(),
        };
        Nodes {
            nodes: vec![Some(root)],
            free: Vec::new(),
        }
    }

    /// Number of inodes.
    pub fn count(&self) -> u64 {
        (self.nodes.len() - self.free.len()) as u64
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0 as usize]
            .as_ref()
            .expect("a link refers to an existing inode")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.0 as usize]
            .as_mut()
            .expect("a link refers to an existing inode")
    }

    pub fn meta(&self, id: NodeId) -> Meta {
        self.node(id).meta
    }

    pub fn set_meta(&mut self, id: NodeId, meta: Meta) {
        self.node_mut(id).meta = meta;
    }

    pub fn object(&self, id: NodeId) -> &Object {
        &self.node(id).object
    }

    pub fn nlink(&self, id: NodeId) -> u32 {
        self.node(id).nlink
    }

    pub fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.node(id).object, Object::Directory)
    }

    /// The names in a directory, in byte order. None for other objects.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = (&[u8], Link)> {
        self.node(id)
            .children
            .iter()
            .map(|(name, link)| (&**name, *link))
    }

    pub fn link(&self, directory: NodeId, name: &[u8]) -> Option<Link> {
        self.node(directory).children.get(name).copied()
    }

    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.link(directory, name).map(|link| link.node)
    }

    /// Notes that `layer` has an entry at a name or below it.
    pub fn touch(&mut self, directory: NodeId, name: &[u8], layer: u32) {
        if let Some(link) = self.node_mut(directory).children.get_mut(name) {
            link.layer = layer;
        }
    }

    /// Creates an inode with its first name, which must be free.
    pub fn insert(
        &mut self,
        directory: NodeId,
        name: &[u8],
        meta: Meta,
        object: Object,
        layer: u32,
    ) -> NodeId {
        let node = Node {
            meta,
            object,
            nlink: 0,
            children: Children::new(),
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id.0 as usize] = Some(node);
                id
            }
            None => {
                self.nodes.push(Some(node));
                NodeId((self.nodes.len() - 1) as u32)
            }
        };
        self.name(directory, name, id, layer);
        id
    }

    /// Adds a name to an inode. The name must be free.
    pub fn name(&mut self, directory: NodeId, name: &[u8], node: NodeId, layer: u32) {
        self.node_mut(node).nlink += 1;
        let old = self
            .node_mut(directory)
            .children
            .insert(name.into(), Link { node, layer });
        debug_assert!(old.is_none(), "a name is free before it is given");
    }

    /// Removes a name; with its last name, the inode and all below it. Returns the number of names removed.
    pub fn remove(&mut self, directory: NodeId, name: &[u8]) -> u64 {
        let Some(link) = self.node_mut(directory).children.remove(name) else {
            return 0;
        };
        let mut removed = 0;
        let mut pending = vec![link.node];
        while let Some(id) = pending.pop() {
            removed += 1;
            let node = self.node_mut(id);
            node.nlink -= 1;
            if node.nlink == 0 {
                let node = self.nodes[id.0 as usize].take();
                pending.extend(
                    node.into_iter()
                        .flat_map(|node| node.children.into_values())
                        .map(|link| link.node),
                );
                self.free.push(id);
            }
        }
        removed
    }
}
