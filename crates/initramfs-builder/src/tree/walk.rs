//! Visits a tree in the order of the archive.

use std::cmp::Ordering;

use super::Tree;
use super::node::{Meta, Object};
use super::store::{NodeId, Nodes};

/// One name of the tree.
pub(crate) struct Visit<'a> {
    /// Path without a leading slash; the root is `.`.
    pub path: &'a [u8],
    pub node: NodeId,
    pub meta: Meta,
    pub object: &'a Object,
    /// Number of names of the inode.
    pub nlink: u32,
}

/// A name to visit, or a directory to enter.
struct Step<'a> {
    name: &'a [u8],
    node: NodeId,
    /// Enter the directory instead of visiting its name.
    enter: bool,
}

impl Step<'_> {
    /// The byte order of whole paths. Children of `a` come after `a-b`, because `/` is greater than `-`: entering a
    /// directory is ordered like its name with a slash.
    fn compare(&self, other: &Self) -> Ordering {
        let key = |step: &Self| step.name.len() + usize::from(step.enter);
        let byte = |step: &Self, at: usize| step.name.get(at).copied().unwrap_or(b'/');
        let (a, b) = (key(self), key(other));
        let common = self.name.len().min(other.name.len());
        self.name[..common]
            .cmp(&other.name[..common])
            .then_with(|| {
                (common..a.min(b))
                    .map(|at| byte(self, at).cmp(&byte(other, at)))
                    .find(|order| order.is_ne())
                    .unwrap_or(a.cmp(&b))
            })
    }
}

fn steps(nodes: &Nodes, directory: NodeId) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for (name, link) in nodes.children(directory) {
        steps.push(Step {
            name,
            node: link.node,
            enter: false,
        });
        if nodes.is_directory(link.node) {
            steps.push(Step {
                name,
                node: link.node,
                enter: true,
            });
        }
    }
    steps.sort_by(Step::compare);
    // The next step is popped from the end.
    steps.reverse();
    steps
}

impl Tree {
    /// Calls `visit` for every name in byte order of whole paths: the root first, a directory before its children.
    pub(crate) fn walk<E>(
        &self,
        mut visit: impl FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let nodes = &self.nodes;
        let mut call = |path: &[u8], node| {
            let (meta, object, nlink) = (nodes.meta(node), nodes.object(node), nodes.nlink(node));
            visit(Visit {
                path,
                node,
                meta,
                object,
                nlink,
            })
        };
        call(b".", NodeId::ROOT)?;
        let mut path = Vec::new();
        // Entered directories, each with the length of its path.
        let mut stack = vec![(steps(nodes, NodeId::ROOT), 0)];
        while let Some((steps_left, length)) = stack.last_mut() {
            let Some(step) = steps_left.pop() else {
                stack.pop();
                continue;
            };
            path.truncate(*length);
            path.extend_from_slice(step.name);
            if step.enter {
                path.push(b'/');
                let length = path.len();
                stack.push((steps(nodes, step.node), length));
            } else {
                call(&path, step.node)?;
            }
        }
        Ok(())
    }
}
