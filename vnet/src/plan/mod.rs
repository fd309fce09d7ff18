//! From what is wanted and what is there to the steps between them. Pure.
//!
//! ```text
//! desired  (resource, state) --.
//!                               >-- plan() --> [remove ..., create or change ...]
//! obsolete (resource, state) --'
//! ```
//!
//! Laws, tested below: a plan of things that are all as described is empty; doing any beginning of a plan and
//! planning again reaches the same end; what is obsolete goes in reverse order and before anything is made; what hangs
//! on something that is not as described, and may have to be made anew, is done again.

mod blocks;
pub mod expand;
mod op;
mod resource;

pub use blocks::{Block, blocks};
pub use op::Op;
pub use resource::{
    BySource, CgroupShare, Class, Direct, DirectEnd, Hop, Identity, Queue, Resource, Shaper, State, Veth,
};

use std::collections::{HashMap, HashSet};

/// Parts of [`Resource`].
pub use crate::spec::{Cgroup, CgroupPath, GsoSizes, Pacing, TableSizes};

/// Steps, in the order in which they are to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub ops: Vec<Op>,
    /// What things were described as that the steps change or remove, where they are to be so again if a later step
    /// fails.
    pub former: Vec<Resource>,
}

impl Plan {
    /// The steps that undo the first `done` of these, last first: what was created is removed, what was changed or
    /// removed is made as it was described before, if that is known. Maps and programs that were changed stay: a change of
    /// them that fails has gone back by itself, to programs which, if another build's, only that build could make again.
    #[must_use]
    pub fn undo(&self, done: usize) -> Vec<Op> {
        let former: HashMap<Identity<'_>, &Resource> =
            self.former.iter().map(|former| (former.identity(), former)).collect();
        let former = |resource: &Resource| former.get(&resource.identity()).map(|former| (*former).clone());
        let inverse = |op: &Op| match op {
            Op::Create(resource) => Some(Op::Remove(resource.clone())),
            Op::Change(Resource::DataPath(_)) => None,
            Op::Change(resource) => former(resource).map(Op::Change),
            Op::Remove(resource) => former(resource).map(Op::Create),
        };
        self.ops[..done].iter().rev().filter_map(inverse).collect()
    }
}

/// The steps that lead to the desired resources and away from the obsolete ones. Both lists are in the order
/// of creation.
#[must_use]
pub fn plan(desired: &[(Resource, State)], obsolete: &[(Resource, State)]) -> Plan {
    let wanted: HashSet<Identity<'_>> = desired.iter().map(|(resource, _)| resource.identity()).collect();
    let wanted = |gone: &Resource| wanted.contains(&gone.identity());
    // What is both obsolete and wanted again in another form is changed, not taken away in between.
    let removals =
        obsolete.iter().rev().filter(|(resource, state)| *state != State::Absent && !wanted(resource));
    let removals = removals.map(|(resource, _)| Op::Remove(resource.clone()));
    // A pair of interfaces that is not as described may have to be made anew, or be on its way out with its namespace;
    // and so may the maps: what stands on it as described now would go with it.
    let carries = |resource: &Resource| {
        matches!(
            resource,
            Resource::Veth(_)
                | Resource::Leg(_)
                | Resource::Hold { .. }
                | Resource::DataPath(_)
                | Resource::Bridge { far_end: Some(_), .. }
        )
    };
    let unsteady = desired.iter().filter(|(resource, state)| carries(resource) && *state != State::Present);
    let unsteady: Vec<&Resource> = unsteady.map(|(resource, _)| resource).collect();
    let additions = desired.iter().filter_map(|(resource, state)| match state {
        State::Absent => Some(Op::Create(resource.clone())),
        State::Differs(_) => Some(Op::Change(resource.clone())),
        State::Present => {
            let again = unsteady.iter().any(|other| resource.hangs_on(other));
            again.then(|| Op::Change(resource.clone()))
        }
    });
    Plan { ops: removals.chain(additions).collect(), former: Vec::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vnet_common::{Hook, Mac};

    use super::*;

    /// What is there, in a model without failures.
    type World = Vec<Resource>;

    fn state(world: &World, resource: &Resource) -> State {
        match world.iter().find(|other| other.same_identity(resource)) {
            None => State::Absent,
            Some(other) if other == resource => State::Present,
            Some(other) => State::Differs(other.to_string()),
        }
    }

    fn observe(world: &World, resources: &[Resource]) -> Vec<(Resource, State)> {
        resources.iter().map(|resource| (resource.clone(), state(world, resource))).collect()
    }

    fn apply(world: &mut World, op: &Op) {
        let (Op::Create(resource) | Op::Change(resource) | Op::Remove(resource)) = op;
        world.retain(|other| !other.same_identity(resource));
        if !matches!(op, Op::Remove(_)) {
            world.push(resource.clone());
        }
    }

    /// One of a few things, in one of two descriptions.
    fn resource() -> impl Strategy<Value = Resource> {
        (0..4_u32, 0..2_u32, 0..3_u8).prop_map(|(nth, variant, kind)| match kind {
            0 => Resource::Namespace { name: format!("n{nth}") },
            1 => Resource::Attachment { hook: Hook::FromEndpoint, interface: format!("v{nth}") },
            _ => Resource::Bridge {
                name: format!("b{nth}"),
                far_end: None,
                mac: Mac::new([2; 6]),
                mtu: 1400 + variant,
                gso: GsoSizes::LEGACY,
                addresses: Vec::new(),
            },
        })
    }

    /// Distinct things.
    fn resources() -> impl Strategy<Value = Vec<Resource>> {
        prop::collection::vec(resource(), 0..8).prop_map(|all| {
            let mut distinct: Vec<Resource> = Vec::new();
            for resource in all {
                if !distinct.iter().any(|other| other.same_identity(&resource)) {
                    distinct.push(resource);
                }
            }
            distinct
        })
    }

    fn sorted(world: &World) -> Vec<String> {
        let mut names: Vec<String> = world.iter().map(|resource| format!("{resource:?}")).collect();
        names.sort();
        names
    }

    proptest! {
        #[test]
        fn nothing_is_left_to_do_where_all_is_as_described(desired in resources()) {
            prop_assert_eq!(plan(&observe(&desired, &desired), &[]), Plan::default());
        }

        #[test]
        fn any_beginning_of_a_plan_leads_to_the_same_end(
            world in resources(), desired in resources(), obsolete in resources(), stop in 0..20_usize,
        ) {
            let make = |world: &World| plan(&observe(world, &desired), &observe(world, &obsolete)).ops;
            let mut straight = world.clone();
            make(&world).iter().for_each(|op| apply(&mut straight, op));
            prop_assert_eq!(make(&straight), Vec::new());
            for resource in &desired {
                prop_assert_eq!(state(&straight, resource), State::Present);
            }

            let mut interrupted = world.clone();
            make(&world).iter().take(stop).for_each(|op| apply(&mut interrupted, op));
            let rest = make(&interrupted);
            rest.iter().for_each(|op| apply(&mut interrupted, op));
            prop_assert_eq!(sorted(&interrupted), sorted(&straight));
        }

        #[test]
        fn undoing_what_was_created_leaves_what_was_there(world in resources(), desired in resources()) {
            let plan = plan(&observe(&world, &desired), &[]);
            let ops = &plan.ops;
            let mut after = world.clone();
            ops.iter().for_each(|op| apply(&mut after, op));
            plan.undo(ops.len()).iter().for_each(|op| apply(&mut after, op));
            let untouched = |after: &World| -> World {
                let changed = |resource: &Resource| ops.contains(&Op::Change(resource.clone()));
                let identity = |resource: &&Resource| !desired.iter().any(|d| changed(d) && d.same_identity(resource));
                after.iter().filter(identity).cloned().collect()
            };
            prop_assert_eq!(sorted(&untouched(&after)), sorted(&untouched(&world)));
        }

        #[test]
        fn undoing_with_what_was_there_before_leaves_exactly_that(
            world in resources(), desired in resources(), obsolete in resources(), stop in 0..20_usize,
        ) {
            let plan = Plan {
                former: world.clone(),
                ..plan(&observe(&world, &desired), &observe(&world, &obsolete))
            };
            let done = stop.min(plan.ops.len());
            let mut after = world.clone();
            plan.ops[..done].iter().for_each(|op| apply(&mut after, op));
            plan.undo(done).iter().for_each(|op| apply(&mut after, op));
            prop_assert_eq!(sorted(&after), sorted(&world));
        }
    }

    /// It was tried once more, by the build that had just failed, and took the instance over although it said it had not.
    #[test]
    fn a_change_of_the_data_path_is_not_tried_again_to_undo_it() {
        let data_path = Resource::DataPath(TableSizes::default());
        let ops = vec![Op::Change(data_path.clone())];
        let plan = Plan { ops, former: vec![data_path.clone()] };
        assert_eq!(plan.undo(1), []);
        let plan = Plan { ops: vec![Op::Create(data_path.clone())], former: Vec::new() };
        assert_eq!(plan.undo(1), [Op::Remove(data_path)]);
    }

    #[test]
    fn what_hangs_on_a_pair_that_is_not_as_described_is_done_again() {
        let veth = |nth: u8| Veth {
            host: format!("v{nth}"),
            bridge: Some("b".to_owned()),
            namespace: format!("/run/netns/n{nth}").into(),
            ifname: "eth0".to_owned(),
            mac: Mac::new([2, 0, 0, 0, 0, nth]),
            mtu: 1500,
            gso: GsoSizes::LEGACY,
            addresses: Vec::new(),
            neighbours: Vec::new(),
            gateways: Vec::new(),
            routes: Vec::new(),
            by_source: None,
            siblings: Vec::new(),
        };
        let attachment = |interface: &str| {
            let interface = interface.to_owned();
            Resource::Attachment { hook: Hook::FromEndpoint, interface }
        };
        let limit = |interface: &str, namespace: Option<&str>| {
            let (interface, namespace) = (interface.to_owned(), namespace.map(Into::into));
            let rate = crate::spec::Rate::try_from(1_000_000).unwrap();
            Resource::Limit(Shaper { interface, namespace, rate, burst: 10_000, queue: 10_000 })
        };
        let of_first = [attachment("v1"), limit("v1", None), limit("eth0", Some("/run/netns/n1"))];
        let of_second = [attachment("v2"), limit("v2", None), limit("eth0", Some("/run/netns/n2"))];
        let bridge = attachment("b");
        for state in [State::Differs("it has another end".to_owned()), State::Absent] {
            let mut desired =
                vec![(Resource::Veth(veth(1)), state.clone()), (Resource::Veth(veth(2)), State::Present)];
            let others = of_first.iter().chain(&of_second).chain([&bridge]);
            desired.extend(others.map(|other| (other.clone(), State::Present)));
            let ops = plan(&desired, &[]).ops;
            let again: Vec<Op> = of_first.iter().cloned().map(Op::Change).collect();
            assert_eq!(ops[1..], again, "{state:?}");
        }
    }

    #[test]
    fn what_is_obsolete_goes_first_and_in_reverse() {
        let named = |name: &str| Resource::Namespace { name: name.to_owned() };
        let world = vec![named("a"), named("b")];
        let ops =
            plan(&observe(&world, &[named("c")]), &observe(&world, &[named("a"), named("b"), named("x")]))
                .ops;
        assert_eq!(ops, [Op::Remove(named("b")), Op::Remove(named("a")), Op::Create(named("c"))]);
    }
}
