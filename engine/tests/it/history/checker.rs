//! Whether what threads saw of one register could have happened one after another.
//!
//! Each operation takes effect at one moment between its call and its end. The checker goes through
//! calls and ends in the order of time, and keeps every state that the register may be in, each with
//! the pending operations that have taken effect in it. When an operation ends, only those states
//! remain in which it has taken effect with the answer that it gave. Once none remains, the history
//! is wrong.
//!
//! An operation that a crash cut off may have taken effect, up to the end that it is given, or never.

use std::collections::BTreeSet;

/// What a register holds: a value that was written once in the whole history, and when it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) id: u64,
    pub(super) expiry: Option<u64>,
}

pub(super) type State = Option<Held>;

/// What was done, and the answer. The answer of an operation that was cut off counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Found this value.
    Read(Option<u64>),
    /// Wrote, whatever was there.
    Put(Held),
    /// Deleted, and said whether something was there.
    Delete { was_there: bool },
    /// Wrote `new` if `expected` was there, and said whether it was.
    Swap { expected: Option<u64>, new: State, swapped: bool },
    /// Saw a value and wrote another in one step.
    Update { seen: Option<u64>, new: State },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) call: u64,
    pub(super) end: u64,
    /// What the wall clock showed before and after.
    pub(super) clock: (u64, u64),
    /// Whether it ended with its answer, and not by a crash.
    pub(super) is_certain: bool,
    pub(super) action: Action,
}

impl Operation {
    /// The states that may follow `state` if the operation takes effect now.
    fn follow(&self, state: State) -> Vec<State> {
        let mut next = Vec::new();
        // Each operation judges by its own look at the clock, which stood somewhere between the two
        // readings: expiring is no event of its own that all would see in one order.
        let is_visible = state.is_some_and(|held| held.expiry.is_none_or(|at| self.clock.0 < at));
        let is_gone = state.is_none_or(|held| held.expiry.is_some_and(|at| at <= self.clock.1));
        for seen in
            [state.filter(|_| is_visible).map(|held| Some(held.id)), is_gone.then_some(None)]
                .into_iter()
                .flatten()
        {
            match self.action {
                Action::Read(found) if found == seen => next.push(state),
                Action::Put(held) => next.push(Some(held)),
                Action::Delete { was_there } if !self.is_certain || was_there == seen.is_some() => {
                    next.push(None);
                }
                Action::Swap { expected, new, swapped } => {
                    if self.is_certain && swapped != (expected == seen) {
                        continue;
                    }
                    next.push(if expected == seen { new } else { state });
                }
                Action::Update { seen: said, new } if !self.is_certain || said == seen => {
                    next.push(new);
                }
                Action::Read(_) | Action::Delete { .. } | Action::Update { .. } => {}
            }
        }
        next
    }
}

/// A state that the register may be in, and the pending operations that took effect, as bits.
type Possible = BTreeSet<(State, u64)>;

/// Checks a history that begins with `first`. The error names the operation that cannot be.
pub(super) fn check(first: State, operations: &[Operation]) -> Result<(), String> {
    let mut times: Vec<(u64, bool, usize)> = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        assert!(operation.call < operation.end, "time goes on");
        times.push((operation.call, false, index));
        times.push((operation.end, true, index));
    }
    times.sort_unstable();
    let mut pending: Vec<Option<usize>> = Vec::new();
    let mut possible: Possible = [(first, 0)].into();
    for (_, is_end, index) in times {
        if !is_end {
            let slot = pending.iter().position(Option::is_none).unwrap_or(pending.len());
            assert!(slot < 64, "one bit for each pending operation");
            pending.resize(pending.len().max(slot + 1), None);
            pending[slot] = Some(index);
            continue;
        }
        let operation = &operations[index];
        let slot = pending.iter().position(|p| *p == Some(index)).expect("it was called");
        let bit = 1 << slot;
        let reached = reach(&possible, bit, &pending, operations);
        let never = possible.iter().copied().filter(|_| !operation.is_certain);
        let next: Possible =
            reached.into_iter().chain(never).map(|(state, done)| (state, done & !bit)).collect();
        if next.is_empty() {
            let states: BTreeSet<State> = possible.iter().map(|(state, _)| *state).collect();
            return Err(format!("{operation:?} cannot be; possible before: {states:?}"));
        }
        possible = next;
        pending[slot] = None;
    }
    Ok(())
}

/// All that is possible once the operation of `bit` has taken effect, after any of the others.
fn reach(
    possible: &Possible,
    bit: u64,
    pending: &[Option<usize>],
    operations: &[Operation],
) -> Possible {
    let mut seen = possible.clone();
    let mut open: Vec<(State, u64)> = possible.iter().copied().collect();
    let mut reached = Possible::new();
    while let Some((state, done)) = open.pop() {
        if done & bit != 0 {
            reached.insert((state, done));
            continue;
        }
        for (slot, index) in pending.iter().enumerate() {
            let Some(index) = index.filter(|_| done >> slot & 1 == 0) else { continue };
            for next in operations[index].follow(state) {
                let next = (next, done | 1 << slot);
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
    }
    reached
}

mod tests {
    use super::{Action, Held, Operation, check};

    const fn value(id: u64) -> Held {
        Held { id, expiry: None }
    }

    fn until(id: u64, at: u64) -> Action {
        Action::Put(Held { id, expiry: Some(at) })
    }

    fn put(id: u64) -> Action {
        Action::Put(value(id))
    }

    fn op(call: u64, end: u64, action: Action) -> Operation {
        Operation { call, end, clock: (100, 100), is_certain: true, action }
    }

    fn cut_off(call: u64, end: u64, action: Action) -> Operation {
        Operation { is_certain: false, ..op(call, end, action) }
    }

    fn at(clock: u64, operation: Operation) -> Operation {
        Operation { clock: (clock, clock), ..operation }
    }

    fn read(call: u64, end: u64, found: Option<u64>) -> Operation {
        op(call, end, Action::Read(found))
    }

    fn is_right(operations: &[Operation]) -> bool {
        check(None, operations).is_ok()
    }

    #[test]
    fn one_after_another() {
        let delete = Action::Delete { was_there: true };
        assert!(is_right(&[op(1, 2, put(1)), read(3, 4, Some(1)), op(5, 6, delete)]));
        assert!(!is_right(&[op(1, 2, put(1)), read(3, 4, None)]), "a lost write");
        assert!(!is_right(&[op(1, 2, put(1)), op(3, 4, put(2)), read(5, 6, Some(1))]), "stale");
        assert!(!is_right(&[read(1, 2, Some(7))]), "from nowhere");
        let back = [op(1, 2, put(1)), op(3, 4, delete), read(5, 6, Some(1))];
        assert!(!is_right(&back), "a resurrection");
        assert!(!is_right(&[op(1, 2, delete)]), "nothing was there");
        assert!(check(Some(value(3)), &[read(1, 2, Some(3))]).is_ok());
    }

    #[test]
    fn at_the_same_time() {
        // Either order of the two puts, but one for all who look.
        let puts = [op(1, 9, put(1)), op(2, 8, put(2))];
        let with = |more: &[Operation]| is_right(&[&puts, more].concat());
        assert!(with(&[read(3, 4, None), read(10, 11, Some(1))]));
        assert!(with(&[read(3, 4, Some(1)), read(5, 6, Some(2)), read(10, 11, Some(2))]));
        assert!(!with(&[read(3, 4, Some(1)), read(5, 6, Some(2)), read(10, 11, Some(1))]));
        assert!(!with(&[read(3, 4, Some(1)), read(5, 6, None)]), "new, then old");
        assert!(!with(&[read(10, 11, None)]));
    }

    #[test]
    fn conditional_writes_are_one_step() {
        let swap = |call, end, expected, new, swapped| {
            op(call, end, Action::Swap { expected, new: Some(value(new)), swapped })
        };
        let begin = op(1, 2, put(1));
        assert!(is_right(&[begin, swap(3, 9, Some(1), 2, true), swap(4, 8, Some(1), 3, false)]));
        assert!(!is_right(&[begin, swap(3, 9, Some(1), 2, true), swap(4, 8, Some(1), 3, true)]));
        assert!(!is_right(&[begin, swap(3, 4, Some(1), 2, false)]), "refused for no reason");
        let update =
            |call, end, seen, new| op(call, end, Action::Update { seen, new: Some(value(new)) });
        assert!(is_right(&[begin, update(3, 9, Some(1), 2), update(4, 8, Some(2), 3)]));
        assert!(!is_right(&[begin, update(3, 9, Some(1), 2), update(4, 8, Some(1), 3)]), "lost");
    }

    #[test]
    fn what_a_crash_cut_off() {
        let maybe = cut_off(3, 10, put(2));
        let begin = op(1, 2, put(1));
        assert!(is_right(&[begin, maybe, read(11, 12, Some(1))]));
        assert!(is_right(&[begin, maybe, read(11, 12, Some(2))]));
        assert!(!is_right(&[begin, maybe, read(11, 12, Some(1)), read(13, 14, Some(2))]), "later");
        assert!(!is_right(&[begin, maybe, read(11, 12, Some(2)), read(13, 14, Some(1))]), "undone");
        assert!(!is_right(&[begin, maybe, read(11, 12, None)]));
        assert!(!is_right(&[begin, cut_off(3, 10, Action::Read(None)), read(11, 12, None)]));
    }

    #[test]
    fn what_expires() {
        let short = op(1, 2, until(1, 150));
        assert!(is_right(&[short, at(149, read(3, 4, Some(1))), at(150, read(5, 6, None))]));
        assert!(!is_right(&[short, at(149, read(3, 4, None))]), "too early");
        assert!(!is_right(&[short, at(150, read(3, 4, Some(1)))]), "too late");
        let between = Operation { clock: (149, 151), ..read(3, 9, None) };
        assert!(is_right(&[short, between]));
        assert!(!is_right(&[short, between, at(151, read(10, 11, Some(1)))]), "back again");
        let older = [op(1, 2, put(1)), op(3, 4, until(2, 150)), at(160, read(5, 6, Some(1)))];
        assert!(!is_right(&older), "an expired value uncovers an older one");
        let absent = Action::Swap { expected: None, new: Some(value(5)), swapped: true };
        assert!(is_right(&[short, at(150, op(3, 4, absent)), at(150, read(5, 6, Some(5)))]));
        assert!(!is_right(&[short, at(149, op(3, 4, absent))]));
    }
}
