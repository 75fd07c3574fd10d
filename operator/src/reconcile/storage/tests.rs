use super::*;
use entrepot_config::ByteSize;

const OLD: u64 = 10;
const NEW: u64 = 20;

fn volume(size: u64) -> Volume {
    Volume { size: ByteSize::bytes(size), class: Some("fast".into()) }
}

fn precondition(uid: &str) -> Precondition {
    Precondition { uid: uid.into(), resource_version: "1".into() }
}

fn claim(ordinal: i32, requested: u64, capacity: u64) -> ObservedClaim {
    ObservedClaim {
        name: format!("store-images-{ordinal}"),
        precondition: precondition(&format!("claim-{ordinal}")),
        ordinal,
        requested: ByteSize::bytes(requested),
        capacity: Some(ByteSize::bytes(capacity)),
        class: Some("fast".into()),
        grows_at_restart: false,
        deleting: false,
    }
}

fn node(ordinal: i32) -> ObservedNode {
    ObservedNode {
        name: format!("images-{ordinal}"),
        precondition: precondition(&format!("pod-{ordinal}")),
        ordinal,
        ready: true,
        scheduled: true,
        deleting: false,
    }
}

fn set(size: u64) -> Option<ObservedSet> {
    Some(ObservedSet { precondition: precondition("set"), volume: volume(size), deleting: false })
}

/// Three nodes with these claims, each as requested size and capacity.
fn three(set: Option<ObservedSet>, claims: [(u64, u64); 3]) -> Observed {
    let claims = (0..).zip(claims).map(|(ordinal, (requested, capacity))| claim(ordinal, requested, capacity));
    Observed {
        replicas: 3,
        set,
        claims: claims.collect(),
        nodes: (0..3).map(node).collect(),
        class: Class::Expands,
        unreadable: false,
    }
}

fn expansion(observed: &Observed) -> Step {
    next_step(observed, &volume(NEW), ResizePolicy::Expand)
}

fn recreation(observed: &Observed) -> Step {
    next_step(observed, &volume(NEW), ResizePolicy::Recreate)
}

#[test]
fn nothing_is_done_without_a_difference_or_without_any_object() {
    let settled = three(set(NEW), [(NEW, NEW); 3]);
    let empty =
        Observed { replicas: 3, set: None, claims: vec![], nodes: vec![], class: Class::NotNeeded, unreadable: false };
    for observed in [settled, empty] {
        assert_eq!((expansion(&observed), recreation(&observed)), (Step::Done, Step::Done));
        assert_eq!(volume_now(&observed, &volume(NEW)), volume(NEW));
    }
}

#[test]
fn an_expansion_continues_from_any_step() {
    let names = |step: Step| match step {
        Step::Resize(claims) => claims.into_iter().map(|claim| claim.ordinal).collect(),
        _ => vec![],
    };
    // Nothing done yet; a crash after the first claim; a crash after all claims.
    assert_eq!(names(expansion(&three(set(OLD), [(OLD, OLD); 3]))), [0, 1, 2]);
    assert_eq!(names(expansion(&three(set(OLD), [(NEW, OLD), (OLD, OLD), (OLD, OLD)]))), [1, 2]);
    assert_eq!(expansion(&three(set(OLD), [(NEW, OLD); 3])), Step::Wait(Waiting::Expanding));
    assert_eq!(expansion(&three(set(OLD), [(NEW, NEW), (NEW, NEW), (NEW, OLD)])), Step::Wait(Waiting::Expanding));
    // All volumes have grown; the set is deleted, is being deleted, is gone, is recreated.
    assert_eq!(expansion(&three(set(OLD), [(NEW, NEW); 3])), Step::DeleteSet(precondition("set")));
    let mut leaving = three(set(OLD), [(NEW, NEW); 3]);
    leaving.set.as_mut().unwrap().deleting = true;
    assert_eq!(expansion(&leaving), Step::Wait(Waiting::SetDeletion));
    assert!(!expansion(&leaving).keeps_set());
    assert_eq!(expansion(&three(None, [(NEW, NEW); 3])), Step::Done);
    assert_eq!(expansion(&three(set(NEW), [(NEW, NEW); 3])), Step::Done);
}

#[test]
fn the_set_keeps_its_claim_template_until_it_is_recreated() {
    let observed = three(set(OLD), [(NEW, OLD); 3]);
    assert_eq!(volume_now(&observed, &volume(NEW)), volume(OLD));
    let observed = three(None, [(NEW, NEW); 3]);
    assert_eq!(volume_now(&observed, &volume(NEW)), volume(NEW));
}

#[test]
fn a_file_system_that_grows_at_a_restart_gets_one() {
    let mut observed = three(set(OLD), [(NEW, OLD); 3]);
    observed.claims.iter_mut().for_each(|claim| claim.grows_at_restart = true);
    assert_eq!(expansion(&observed), Step::DeleteSet(precondition("set")));
    observed.set = set(NEW);
    assert_eq!(expansion(&observed), Step::Wait(Waiting::Expanding));
}

#[test]
fn nothing_changes_if_the_class_cannot_expand_or_does_not_exist() {
    for (class, waiting) in [(Class::CannotExpand, Waiting::CannotExpand), (Class::Missing, Waiting::ClassMissing)] {
        let observed = Observed { class, ..three(set(OLD), [(OLD, OLD); 3]) };
        let step = expansion(&observed);
        assert_eq!(step, Step::Wait(waiting));
        assert!(step.keeps_set());
        assert_eq!(volume_now(&observed, &volume(NEW)), volume(OLD));
    }
}

#[test]
fn an_expansion_waits_until_every_claim_is_bound() {
    let mut observed = three(set(OLD), [(OLD, OLD); 3]);
    observed.claims[1].capacity = None;
    assert_eq!(expansion(&observed), Step::Wait(Waiting::Unbound));
}

#[test]
fn claims_that_scaling_down_left_behind_are_not_resized() {
    let observed = Observed { replicas: 1, ..three(set(NEW), [(NEW, NEW), (OLD, OLD), (OLD, OLD)]) };
    assert_eq!((expansion(&observed), recreation(&observed)), (Step::Done, Step::Done));
}

#[test]
fn the_old_claim_of_a_new_node_is_resized_too() {
    let observed = three(set(NEW), [(NEW, NEW), (NEW, NEW), (OLD, OLD)]);
    assert!(matches!(expansion(&observed), Step::Resize(claims) if claims.len() == 1));
}

#[test]
fn recreation_replaces_one_node_at_a_time_from_the_highest() {
    let mut observed = three(set(OLD), [(OLD, OLD); 3]);
    assert_eq!(recreation(&observed), Step::DeleteSet(precondition("set")));
    observed.set = None;
    assert_eq!(recreation(&observed), Step::Done);
    observed.set = set(NEW);
    assert_eq!(recreation(&observed), Step::DeleteClaim(observed.claims[2].clone()));
    // The claim is being deleted: its pod is next, and nothing else until both exist again.
    observed.claims[2].deleting = true;
    assert_eq!(recreation(&observed), Step::DeletePod(node(2)));
    observed.nodes[2].deleting = true;
    assert_eq!(recreation(&observed), Step::Wait(Waiting::Nodes));
    observed.nodes[2] = ObservedNode { ready: false, scheduled: false, ..node(2) };
    assert_eq!(recreation(&observed), Step::Wait(Waiting::Nodes));
    observed.claims[2] = claim(2, NEW, NEW);
    assert_eq!(recreation(&observed), Step::Wait(Waiting::Nodes));
    observed.nodes[2] = node(2);
    assert_eq!(recreation(&observed), Step::DeleteClaim(observed.claims[1].clone()));
}

#[test]
fn recreation_waits_while_another_node_is_not_ready() {
    let mut observed = three(set(NEW), [(OLD, OLD); 3]);
    observed.nodes[0].ready = false;
    assert_eq!(recreation(&observed), Step::Wait(Waiting::Nodes));
    observed.nodes.remove(0);
    assert_eq!(recreation(&observed), Step::Wait(Waiting::Nodes));
    // The node that is not ready is the next to be recreated, which may repair it.
    observed.nodes = vec![node(0), node(1)];
    assert!(matches!(recreation(&observed), Step::DeleteClaim(claim) if claim.ordinal == 2));
}

#[test]
fn another_class_recreates_volumes_and_no_class_keeps_them() {
    let observed = three(set(NEW), [(NEW, NEW); 3]);
    let slow = Volume { class: Some("slow".into()), ..volume(NEW) };
    assert!(matches!(next_step(&observed, &slow, ResizePolicy::Recreate), Step::DeleteSet(_)));
    let unnamed = Volume { class: None, ..volume(NEW) };
    let observed = Observed { set: Some(ObservedSet { volume: unnamed.clone(), ..set(NEW).unwrap() }), ..observed };
    assert_eq!(next_step(&observed, &unnamed, ResizePolicy::Recreate), Step::Done);
}

#[test]
fn nothing_is_done_if_an_object_could_not_be_read_or_decoded() {
    let blind = Observed { class: Class::Unknown, ..three(set(OLD), [(OLD, OLD); 3]) };
    assert_eq!(next_step(&blind, &volume(NEW), ResizePolicy::Expand), Step::Wait(Waiting::ClassUnknown));
    for policy in [ResizePolicy::Expand, ResizePolicy::Recreate] {
        let odd = Observed { unreadable: true, ..three(set(OLD), [(OLD, OLD); 3]) };
        let step = next_step(&odd, &volume(NEW), policy);
        assert_eq!(step, Step::Wait(Waiting::Unreadable));
        assert_eq!(volume_now(&odd, &volume(NEW)), volume(OLD));
    }
}
