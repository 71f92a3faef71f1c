use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cloude_vmm::control::Origin;

use super::super::status::{TemplateLabel, TemplateStatus};
use super::*;
use crate::machine::MachineShape;
use crate::snapshot::Snapshot;

fn config() -> config::Pool {
    config::Pool {
        floor: 1,
        ceiling: 2,
        templates: 2,
        ..config::Pool::default()
    }
}

const DEFAULT: Lookup = Lookup {
    default_machine: true,
    fork_required: false,
};
const OTHER: Lookup = Lookup {
    default_machine: false,
    fork_required: false,
};
const MUST: Lookup = Lookup {
    default_machine: false,
    fork_required: true,
};

fn forks() -> Forks {
    Forks::new(&config(), 1 << 20)
}

fn template() -> Arc<Template> {
    template_of(tempfile::tempfile().unwrap())
}

fn template_of(memory: File) -> Arc<Template> {
    Arc::new(Template {
        snapshot: Snapshot {
            memory: Arc::new(memory),
            state: Arc::new(tempfile::tempfile().unwrap()),
            origin: Origin::default(),
        },
        token: "token".into(),
        shape: MachineShape {
            vcpus: 1,
            memory_mib: 64,
            network: false,
        },
        loaded: false,
        working_set: std::sync::OnceLock::new(),
    })
}

fn begin(forks: &Forks, id: &str) {
    assert!(matches!(forks.find(id, DEFAULT), Found::Begin(_)));
}

fn ready(forks: &Forks, id: &str, lookup: Lookup) {
    assert!(matches!(forks.find(id, lookup), Found::Begin(_)), "{id}");
    forks.built(id, Ok(template()));
}

fn is_ready(forks: &Forks, id: &str) -> bool {
    forks.status(id) == TemplateStatus::Ready
}

#[test]
fn the_first_lookup_builds_and_later_ones_see_the_build() {
    let forks = forks();
    begin(&forks, "a");
    assert!(matches!(forks.find("a", DEFAULT), Found::Building));
    begin(&forks, "b");
    forks.built("a", Ok(template()));
    assert!(matches!(forks.find("a", DEFAULT), Found::Ready(_)));
}

#[test]
fn who_waits_for_a_build_is_not_woken_by_asking() {
    let forks = forks();
    begin(&forks, "a");
    let mut changes = forks.changes();
    changes.mark_unchanged();
    assert!(matches!(forks.find("a", DEFAULT), Found::Building));
    assert!(!changes.has_changed().unwrap());
    forks.built("a", Err("no".into()));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(matches!(forks.find("a", DEFAULT), Found::Failed(_)));
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn a_failed_build_is_not_tried_again_at_once() {
    let forks = forks();
    begin(&forks, "a");
    forks.built("a", Err("no memory".into()));
    assert!(matches!(forks.find("a", DEFAULT), Found::Failed(message) if message == "no memory"));
}

#[test]
fn the_pool_asks_for_forks_of_what_is_ready_alone() {
    let forks = forks();
    begin(&forks, "a");
    assert!(forks.plan(1).make.is_empty());
    forks.built("a", Ok(template()));
    let plan = forks.plan(1);
    assert_eq!(plan.make.len(), 1);
    assert_eq!(plan.make[0].id, "a");
}

#[test]
fn three_failed_forks_in_a_row_drop_the_template() {
    let forks = forks();
    begin(&forks, "a");
    forks.built("a", Ok(template()));
    for _ in 0..2 {
        assert!(forks.failed("a", || {}).is_none());
    }
    forks.worked("a");
    for _ in 0..2 {
        assert!(forks.failed("a", || {}).is_none());
    }
    assert!(forks.failed("a", || {}).is_some());
    begin(&forks, "a");
}

#[test]
fn the_least_recently_used_template_is_evicted() {
    let forks = forks();
    for id in ["a", "b"] {
        begin(&forks, id);
        forks.built(id, Ok(template()));
    }
    assert!(matches!(forks.find("a", DEFAULT), Found::Ready(_)));
    begin(&forks, "c");
    forks.built("c", Ok(template()));
    assert!(matches!(forks.find("a", DEFAULT), Found::Ready(_)));
    begin(&forks, "b");
}

#[test]
fn a_loaded_template_is_dropped_at_its_first_failed_fork() {
    let forks = forks();
    let loaded = || {
        let mut template = Arc::into_inner(template()).unwrap();
        template.loaded = true;
        Arc::new(template)
    };
    begin(&forks, "a");
    forks.built("a", Ok(loaded()));
    assert!(forks.failed("a", || {}).is_some());
    begin(&forks, "a");
    forks.built("a", Ok(loaded()));
    forks.worked("a");
    assert!(forks.failed("a", || {}).is_none());
}

#[test]
fn a_template_is_listed_with_state_and_reason() {
    let forks = forks();
    assert!(matches!(forks.begin("a", true), Begin::Caller(_)));
    assert!(matches!(forks.begin("a", true), Begin::NotNeeded));
    let about = TemplateLabel {
        language: "python".into(),
        shape: template().shape,
    };
    forks.describe("a", about);
    assert!(forks.remove("a").is_none(), "it is being built");
    forks.built("a", Err("no memory".into()));
    let list = forks.list();
    assert_eq!(list[0].language, "python");
    assert_eq!(list[0].reason.as_deref(), Some("no memory"));

    let again = forks.begin("a", true);
    assert!(
        matches!(again, Begin::Caller(_)),
        "whoever asks for it does not wait for the next try"
    );
    forks.built("a", Ok(template()));
    forks.measured("a", 700);
    assert_eq!(forks.list()[0].fork_kib, Some(700));
    assert!(forks.remove("a").is_some());
    assert!(forks.list().is_empty());
}

#[test]
fn a_plan_makes_at_most_at_once_forks() {
    let forks = Forks::new(
        &config::Pool {
            floor: 4,
            ceiling: 4,
            ..config()
        },
        1 << 20,
    );
    for id in ["a", "b"] {
        ready(&forks, id, DEFAULT);
    }
    let first = forks.plan(3);
    let mut ids: Vec<&str> = first.make.iter().map(|make| make.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids.len(), 3);
    assert_eq!((ids[0], ids[2]), ("a", "b"), "in turns");
    assert!(forks.plan(3).make.is_empty(), "three are being made");
    drop(first);
    assert_eq!(forks.plan(9).make.len(), 8, "what failed is made again");
}

#[test]
fn two_hundred_sizes_begin_no_builds_and_leave_the_hot_template() {
    let forks = forks();
    ready(&forks, "hot", DEFAULT);
    for size in 0..200 {
        let found = forks.find(&format!("size {size}"), OTHER);
        assert!(matches!(found, Found::None));
    }
    assert!(is_ready(&forks, "hot"));
    assert_eq!(forks.entries().len(), 1);
}

#[test]
fn repeated_sizes_do_not_replace_the_hot_template() {
    let forks = forks();
    ready(&forks, "hot", DEFAULT);
    let mut builds = 0;
    for size in 0..200 {
        for _ in 0..3 {
            let id = format!("size {size}");
            if let Found::Begin(_) = forks.find(&id, OTHER) {
                builds += 1;
                forks.built(&id, Ok(template()));
            }
        }
    }
    assert_eq!(builds, 200, "each in its turn");
    assert!(is_ready(&forks, "hot"));
    assert_eq!(forks.entries().len(), 2);
}

#[test]
fn builds_that_wait_are_bounded() {
    let forks = forks();
    begin(&forks, "a");
    begin(&forks, "b");
    assert!(matches!(forks.find("c", DEFAULT), Found::None));
    assert!(matches!(forks.begin("c", true), Begin::TooMany));
    forks.abandon("a");
    begin(&forks, "c");
}

#[test]
fn default_machines_in_use_are_not_evicted_for_others() {
    let forks = forks();
    for id in ["a", "b"] {
        ready(&forks, id, DEFAULT);
    }
    for _ in 0..5 {
        assert!(matches!(forks.find("c", OTHER), Found::None));
    }
}

#[test]
fn idle_default_machines_are_evicted_for_others() {
    let forks = Forks::new(
        &config::Pool {
            idle_s: 0,
            ..config()
        },
        1 << 20,
    );
    for id in ["a", "b"] {
        ready(&forks, id, DEFAULT);
    }
    for _ in 0..2 {
        assert!(matches!(forks.find("c", OTHER), Found::None));
    }
    ready(&forks, "c", OTHER);
    assert!(!is_ready(&forks, "a"));
    assert!(is_ready(&forks, "b") && is_ready(&forks, "c"));
}

#[test]
fn a_required_fork_builds_the_template_at_once() {
    let forks = forks();
    let Found::Begin(waiver) = forks.find("a", MUST) else {
        panic!("it is not built");
    };
    assert!(waiver.is_cancelled());
}

#[test]
fn a_required_fork_waives_the_permit_of_a_waiting_build() {
    let forks = forks();
    let Found::Begin(waiver) = forks.find("a", DEFAULT) else {
        panic!("it is not built");
    };
    assert!(!waiver.is_cancelled());
    assert!(matches!(forks.find("a", MUST), Found::Building));
    assert!(waiver.is_cancelled());
}

#[test]
fn reasons_of_failed_builds_are_remembered_up_to_a_bound() {
    let forks = forks();
    for number in 0..100 {
        let id = format!("template {number}");
        begin(&forks, &id);
        forks.built(&id, Err("no memory".into()));
    }
    assert_eq!(forks.entries().len(), 32);
}

/// A template whose memory takes a MiB.
fn large(loaded: bool) -> Arc<Template> {
    let memory = tempfile::tempfile().unwrap();
    memory.write_all_at(&[1; 1 << 20], 0).unwrap();
    let mut template = Arc::into_inner(template_of(memory)).unwrap();
    template.loaded = loaded;
    Arc::new(template)
}

#[test]
fn templates_are_evicted_at_the_memory_limit() {
    let forks = Forks::new(&config(), 1);
    for id in ["a", "b"] {
        begin(&forks, id);
        forks.built(id, Ok(large(false)));
    }
    assert!(!is_ready(&forks, "a"));
    assert!(is_ready(&forks, "b"), "the newest stays");
    assert_eq!(forks.held_bytes(), 1 << 20);
}

#[test]
fn templates_mapped_from_the_disk_hold_no_memory() {
    let forks = Forks::new(&config(), 1);
    for id in ["a", "b"] {
        begin(&forks, id);
        forks.built(id, Ok(large(true)));
    }
    assert!(is_ready(&forks, "a") && is_ready(&forks, "b"));
    assert_eq!(forks.held_bytes(), 0);
}
