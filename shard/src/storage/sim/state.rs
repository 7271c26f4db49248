//! The simulated file system: files, directories and the changes of entries not yet synced.
//!
//! Invariants:
//!
//! - Node numbers are never used twice.
//! - A directory has live and durable entries. `changes` lists, in order, what turns the durable
//!   entries of all directories into the live ones.
//! - Only handles of the current `life` reach the state.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::SECTOR_BYTES;
use super::chooser::{Chooser, Pending};
use super::faults::{FailedSync, FaultPlan, Op};
use super::image::FileNode;
use super::rng::Rng;
use crate::storage::{DirEntry, EntryKind};

/// 2023-11-14: late enough for any arithmetic on times.
const START_WALL_MS: u64 = 1_700_000_000_000;
/// Below this many nodes nobody looks for garbage.
const NODES_MIN: usize = 64;

pub(super) type NodeId = u64;
pub(super) const ROOT: NodeId = 0;

#[derive(Debug)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Debug)]
pub(super) struct DirNode {
    label: Arc<Path>,
    live: BTreeMap<OsString, NodeId>,
    durable: BTreeMap<OsString, NodeId>,
}

/// One atomic change of entries: a name goes, or a name comes, or (renaming) both.
#[derive(Clone, Debug)]
struct Change {
    op: Op,
    unset: Option<Place>,
    set: Option<(Place, NodeId)>,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    dir: NodeId,
    name: OsString,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Live,
    Durable,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) life: u64,
    pub(super) crashed: bool,
    /// A store through a map that the kernel would not have allowed, not reported yet.
    pub(super) stray_store: Option<String>,
    pub(super) faults: FaultPlan,
    pub(super) rng: Rng,
    pub(super) wall_ms: u64,
    pub(super) monotonic: Duration,
    pub(super) map_reserve: usize,
    /// The locked files of this life.
    pub(super) locks: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    changes: Vec<Change>,
    /// Garbage is looked for when there are more nodes than this.
    nodes_max: usize,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        let root = DirNode {
            label: Path::new("/").into(),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
        };
        State {
            life: 1,
            crashed: false,
            stray_store: None,
            faults: FaultPlan::default(),
            rng: Rng::new(seed),
            wall_ms: START_WALL_MS,
            monotonic: Duration::ZERO,
            map_reserve: 0,
            locks: BTreeSet::new(),
            nodes: BTreeMap::from([(ROOT, Node::Dir(root))]),
            next_node: ROOT + 1,
            changes: Vec::new(),
            nodes_max: NODES_MIN,
        }
    }

    /// A copy without handles, locks and faults.
    pub(super) fn fork(&self) -> State {
        let nodes = self.nodes.iter().map(|(id, node)| {
            let copy = match node {
                Node::File(file) => Node::File(file.fork()),
                Node::Dir(dir) => Node::Dir(dir.clone()),
            };
            (*id, copy)
        });
        State {
            life: self.life + 1,
            crashed: false,
            stray_store: None,
            faults: FaultPlan::default(),
            rng: self.rng.clone(),
            wall_ms: self.wall_ms,
            monotonic: self.monotonic,
            map_reserve: self.map_reserve,
            locks: BTreeSet::new(),
            nodes: nodes.collect(),
            next_node: self.next_node,
            changes: self.changes.clone(),
            nodes_max: self.nodes_max,
        }
    }

    // ---- Paths ----

    /// The node at a path.
    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    at = *self.dir(at)?.live.get(name).ok_or(Errno::NOENT)?;
                }
                Component::ParentDir => return Err(Errno::INVAL.into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(at)
    }

    /// The directory and the name that a path stands for, whether or not the name is there.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok(Place { dir, name: name.to_os_string() })
    }

    /// What stands at a place.
    pub(super) fn at(&self, place: &Place) -> Option<NodeId> {
        self.dir(place.dir).ok()?.live.get(&place.name).copied()
    }

    fn vacant(&self, path: &Path) -> io::Result<Place> {
        let place = self.place(path)?;
        if self.at(&place).is_some() { Err(Errno::EXIST.into()) } else { Ok(place) }
    }

    fn occupied(&self, path: &Path) -> io::Result<(Place, NodeId)> {
        let place = self.place(path)?;
        let id = self.at(&place).ok_or(Errno::NOENT)?;
        Ok((place, id))
    }

    pub(super) fn dir(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// The file of a handle or entry.
    pub(super) fn file(&self, id: NodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    // ---- Directory calls ----

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let place = self.vacant(path)?;
        self.take_space(SECTOR_BYTES as u64)?;
        let dir = DirNode { label: path.into(), live: BTreeMap::new(), durable: BTreeMap::new() };
        let id = self.add(Node::Dir(dir));
        self.change(Change { op: Op::CreateDir, unset: None, set: Some((place, id)) });
        Ok(())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<NodeId> {
        let place = self.vacant(path)?;
        self.take_space(SECTOR_BYTES as u64)?;
        let id = self.add(Node::File(FileNode::new(path.into())));
        self.change(Change { op: Op::Create, unset: None, set: Some((place, id)) });
        Ok(id)
    }

    pub(super) fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let entries = self.dir(self.find(path)?)?.live.iter().map(|(name, id)| {
            let kind = match self.nodes[id] {
                Node::File(_) => EntryKind::File,
                Node::Dir(_) => EntryKind::Dir,
            };
            DirEntry { name: name.clone(), kind }
        });
        Ok(entries.collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (source, id) = self.occupied(from)?;
        let target = self.place(to)?;
        if let Some(old) = self.at(&target) {
            if old == id {
                return Ok(());
            }
            match (&self.nodes[&id], &self.nodes[&old]) {
                (Node::File(_), Node::File(_)) => {}
                (Node::File(_), Node::Dir(_)) => return Err(Errno::ISDIR.into()),
                (Node::Dir(_), Node::File(_)) => return Err(Errno::NOTDIR.into()),
                (Node::Dir(_), Node::Dir(old)) if old.live.is_empty() => {}
                (Node::Dir(_), Node::Dir(_)) => return Err(Errno::NOTEMPTY.into()),
            }
        }
        self.change(Change { op: Op::Rename, unset: Some(source), set: Some((target, id)) });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (place, id) = self.occupied(path)?;
        self.file(id)?;
        self.change(Change { op: Op::Remove, unset: Some(place), set: None });
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (_, id) = self.occupied(from)?;
        self.file(id).map_err(|_| Errno::PERM)?;
        let place = self.vacant(to)?;
        self.take_space(0)?;
        self.change(Change { op: Op::HardLink, unset: None, set: Some((place, id)) });
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.find(path)?;
        self.dir(dir)?;
        for change in self.take_changes(dir) {
            self.apply(&change, Side::Durable);
        }
        Ok(())
    }

    /// A directory sync that failed.
    pub(super) fn fail_sync_dir(&mut self, path: &Path) {
        let manner = self.faults.failed_sync;
        let Ok(dir) = self.find(path) else { return };
        if manner == FailedSync::KeepDirty {
            return;
        }
        for change in self.take_changes(dir) {
            if manner == FailedSync::DropSome && self.rng.chance(1, 2) {
                self.apply(&change, Side::Durable);
            }
        }
    }

    pub(super) fn open_handles(&self) -> u64 {
        let open = |node: &Node| if let Node::File(file) = node { u64::from(file.open) } else { 0 };
        self.nodes.values().map(open).sum()
    }

    fn take_changes(&mut self, dir: NodeId) -> Vec<Change> {
        self.changes.extract_if(.., |change| change.touches(dir)).collect()
    }

    fn add(&mut self, node: Node) -> NodeId {
        if self.nodes.len() > self.nodes_max {
            self.collect_garbage();
        }
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        id
    }

    fn change(&mut self, change: Change) {
        self.apply(&change, Side::Live);
        self.changes.push(change);
    }

    fn apply(&mut self, change: &Change, side: Side) {
        if let Some(place) = &change.unset {
            let old = self.entries(place.dir, side).and_then(|all| all.remove(&place.name));
            self.count_link(old, side, false);
        }
        if let Some((place, id)) = &change.set {
            let entries = self.entries(place.dir, side);
            let old = entries.and_then(|all| all.insert(place.name.clone(), *id));
            self.count_link(old, side, false);
            self.count_link(Some(*id), side, true);
        }
    }

    /// The entries of a directory; none when it is gone.
    fn entries(&mut self, dir: NodeId, side: Side) -> Option<&mut BTreeMap<OsString, NodeId>> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir(dir)) => match side {
                Side::Live => Some(&mut dir.live),
                Side::Durable => Some(&mut dir.durable),
            },
            _ => None,
        }
    }

    fn count_link(&mut self, id: Option<NodeId>, side: Side, more: bool) {
        if side == Side::Live
            && let Some(Ok(file)) = id.map(|id| self.file_mut(id))
        {
            file.links = if more { file.links + 1 } else { file.links - 1 };
        }
    }

    // ---- Space ----

    /// What all files that can still be reached take.
    pub(super) fn space_used(&self) -> u64 {
        let sector = SECTOR_BYTES as u64;
        let spaces = self.nodes.values().map(|node| match node {
            Node::Dir(_) => sector,
            Node::File(file) if file.links > 0 || file.open > 0 || file.is_mapped() => {
                sector + file.allocated().next_multiple_of(sector)
            }
            Node::File(_) => 0,
        });
        spaces.sum()
    }

    /// Free space; `None` where there is no limit.
    fn space_free(&self) -> Option<u64> {
        self.faults.capacity.map(|capacity| capacity.saturating_sub(self.space_used()))
    }

    fn take_space(&self, bytes: u64) -> io::Result<()> {
        match self.space_free() {
            Some(free) if free < bytes.max(1) => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        }
    }

    /// How far a file may be allocated: `end`, or less where the space is short.
    pub(super) fn space_up_to(&self, id: NodeId, end: u64) -> io::Result<u64> {
        let held = self.file(id)?.allocated().next_multiple_of(SECTOR_BYTES as u64);
        let limit = self.space_free().map_or(u64::MAX, |free| held.saturating_add(free));
        Ok(end.min(limit))
    }

    // ---- Ends of a life ----

    /// The process is gone: handles, locks and maps are cut off, the live state stays.
    pub(super) fn die(&mut self) {
        let strays = self.nodes.values().find_map(|node| match node {
            Node::File(file) => file.stray_store(),
            Node::Dir(_) => None,
        });
        self.stray_store = self.stray_store.take().or(strays);
        self.life += 1;
        self.locks.clear();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.detach_maps();
            }
        }
    }

    /// The power is gone too.
    pub(super) fn cut(&mut self, chooser: &mut dyn Chooser) {
        for change in std::mem::take(&mut self.changes) {
            let (path, to) = self.describe(&change);
            let to = to.as_deref();
            if chooser.keep(&Pending::Entry { op: change.op, path: &path, to }) {
                self.apply(&change, Side::Durable);
            }
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::Dir(dir) => dir.live.clone_from(&dir.durable),
                Node::File(file) => file.links = 0,
            }
        }
        self.collect_garbage();
        self.count_links();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.cut(chooser);
            }
        }
    }

    /// How many questions [`State::cut`] asks at most.
    pub(super) fn pending_choices(&self) -> usize {
        let files = self.nodes.values().map(|node| match node {
            Node::File(file) => file.pending_choices(),
            Node::Dir(_) => 0,
        });
        files.sum::<usize>() + self.changes.len()
    }

    fn describe(&self, change: &Change) -> (PathBuf, Option<PathBuf>) {
        let path = |place: &Place| match self.dir(place.dir) {
            Ok(dir) => dir.label.join(&place.name),
            Err(_) => place.name.clone().into(),
        };
        match (&change.unset, &change.set) {
            (Some(from), Some((to, _))) => (path(from), Some(path(to))),
            (Some(place), None) | (None, Some((place, _))) => (path(place), None),
            (None, None) => unreachable!("a change changes something"),
        }
    }

    /// Drops the nodes that no name, pending change, handle or map can reach any more.
    fn collect_garbage(&mut self) {
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        next.extend(
            self.changes.iter().filter_map(|change| change.set.as_ref().map(|(_, id)| *id)),
        );
        for (id, node) in &self.nodes {
            match node {
                Node::File(file) if file.open > 0 || file.is_mapped() => next.push(*id),
                _ => {}
            }
        }
        while let Some(id) = next.pop() {
            if reached.insert(id)
                && let Some(Node::Dir(dir)) = self.nodes.get(&id)
            {
                next.extend(dir.live.values().chain(dir.durable.values()));
            }
        }
        self.nodes.retain(|id, _| reached.contains(id));
        self.nodes_max = (2 * self.nodes.len()).max(NODES_MIN);
    }

    fn count_links(&mut self) {
        let mut links: Vec<NodeId> = Vec::new();
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                links.extend(dir.live.values());
            }
        }
        for id in links {
            self.count_link(Some(id), Side::Live, true);
        }
    }

    // ---- For tests, past all faults ----

    pub(super) fn durable_file(&self, path: &Path) -> Option<&FileNode> {
        let mut at = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                at = *self.dir(at).ok()?.durable.get(name)?;
            }
        }
        self.file(at).ok()
    }

    /// Makes a file with these contents, durably, name and all.
    pub(super) fn plant(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(path)?;
        let id = if let Some(id) = self.at(&place) {
            id
        } else {
            let id = self.add(Node::File(FileNode::new(path.into())));
            self.settle(&Change { op: Op::Create, unset: None, set: Some((place, id)) });
            id
        };
        self.file_mut(id)?.overwrite(bytes);
        Ok(())
    }

    /// Removes a file's name, durably.
    pub(super) fn uproot(&mut self, path: &Path) -> io::Result<()> {
        let (place, id) = self.occupied(path)?;
        self.file(id)?;
        self.settle(&Change { op: Op::Remove, unset: Some(place), set: None });
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Applies a change to both sides, after what is pending for the same name.
    fn settle(&mut self, change: &Change) {
        let earlier: Vec<_> =
            self.changes.extract_if(.., |pending| pending.shares_a_name(change)).collect();
        for pending in earlier {
            self.apply(&pending, Side::Durable);
        }
        self.apply(change, Side::Live);
        self.apply(change, Side::Durable);
    }
}

impl Change {
    fn touches(&self, dir: NodeId) -> bool {
        self.places().any(|place| place.dir == dir)
    }

    fn shares_a_name(&self, other: &Change) -> bool {
        self.places().any(|place| other.places().any(|others| place == others))
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.unset.iter().chain(self.set.iter().map(|(place, _)| place))
    }
}
