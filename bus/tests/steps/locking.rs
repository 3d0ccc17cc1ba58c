//! The recovery lock by itself: taken and given back, behind nobody, behind one who died in it, and behind one who dies while he is
//! waited for.

use shmbus::internals::with_lock_of;

use crate::Plan;
use crate::drive::at_each_instruction;
use crate::operation::{Operation, PLAIN};
use crate::processes::{Part, Role};
use crate::victim::{Victim, between_marks, open, ready};
use crate::world::World;

pub(crate) const ROLES: &[Part] = &[("lock", lock), ("owner", owner)];

const LOCK: Operation = Operation { role: "lock", shared: true, ..PLAIN };

fn test(plan: &Plan, operation: Operation) {
    at_each_instruction(plan, |fate| World::new(operation, fate));
}

fn lock(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    let got = between_marks(|| with_lock_of(&publisher, || ()));
    assert!(got.is_some(), "a second is more than enough behind nobody, or behind the dead");
    victim.publish(&mut publisher);
}

/// Takes the lock, and is killed with it.
fn owner(role: &Role) {
    let publisher = open(role).publisher().unwrap();
    with_lock_of(&publisher, || ready(role)).expect("a free lock");
}

pub(crate) fn a_free_lock_is_taken_and_given_back(plan: &Plan) {
    test(plan, LOCK);
}

pub(crate) fn a_lock_is_taken_from_one_killed_with_it(plan: &Plan) {
    let begun = |world: &mut World| world.bystander("owner").kill();
    test(plan, Operation { begun, ..LOCK });
}

pub(crate) fn a_lock_is_waited_for_until_its_owner_is_killed(plan: &Plan) {
    let begun = |world: &mut World| world.in_the_way = Some(world.bystander("owner"));
    let wake = World::kill_who_is_in_the_way;
    test(plan, Operation { may_sleep: true, begun, wake, ..LOCK });
}
