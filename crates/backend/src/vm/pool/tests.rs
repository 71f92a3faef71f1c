use std::sync::Arc;

use cloude_vmm::control::Origin;

use super::*;

fn config() -> config::Pool {
    config::Pool {
        floor: 1,
        ceiling: 2,
        templates: 2,
        ..config::Pool::default()
    }
}

fn template() -> Arc<Template> {
    Arc::new(Template {
        snapshot: Snapshot {
            memory: Arc::new(tempfile::tempfile().unwrap()),
            record: Arc::new(tempfile::tempfile().unwrap()),
            origin: Origin::default(),
        },
        token: "token".into(),
        shape: Shape {
            vcpus: 1,
            memory_mib: 64,
            network: false,
        },
        loaded: false,
        working_set: std::sync::OnceLock::new(),
    })
}

fn begin(forks: &Forks, id: &str) {
    assert!(matches!(forks.find(id), Found::Begin));
}

#[test]
fn the_first_to_ask_builds_and_the_others_are_told_so() {
    let forks = Forks::new(&config());
    begin(&forks, "a");
    assert!(matches!(forks.find("a"), Found::Building));
    begin(&forks, "b");
    forks.built("a", Ok(template()));
    assert!(matches!(forks.find("a"), Found::Ready(_)));
}

#[test]
fn who_waits_for_a_build_is_not_woken_by_asking() {
    let forks = Forks::new(&config());
    begin(&forks, "a");
    let mut changes = forks.changes();
    changes.mark_unchanged();
    assert!(matches!(forks.find("a"), Found::Building));
    assert!(!changes.has_changed().unwrap());
    forks.built("a", Err("no".into()));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(matches!(forks.find("a"), Found::Failed(_)));
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn a_build_that_failed_is_told_and_not_tried_again_at_once() {
    let forks = Forks::new(&config());
    begin(&forks, "a");
    forks.built("a", Err("no memory".into()));
    assert!(matches!(forks.find("a"), Found::Failed(message) if message == "no memory"));
}

#[test]
fn the_pool_asks_for_forks_of_what_is_ready_alone() {
    let forks = Forks::new(&config());
    begin(&forks, "a");
    assert!(forks.plan().make.is_empty());
    forks.built("a", Ok(template()));
    let plan = forks.plan();
    assert_eq!(plan.make.len(), 1);
    assert_eq!(plan.make[0].0, "a");
}

#[test]
fn a_template_whose_forks_fail_three_times_in_a_row_is_forgotten() {
    let forks = Forks::new(&config());
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
fn past_the_most_the_template_that_was_not_used_for_longest_goes() {
    let forks = Forks::new(&config());
    for id in ["a", "b"] {
        begin(&forks, id);
        forks.built(id, Ok(template()));
    }
    assert!(matches!(forks.find("a"), Found::Ready(_)));
    begin(&forks, "c");
    forks.built("c", Ok(template()));
    assert!(matches!(forks.find("a"), Found::Ready(_)));
    begin(&forks, "b");
}

#[test]
fn a_template_from_the_disk_is_forgotten_with_its_first_fork_unless_one_worked() {
    let forks = Forks::new(&config());
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
fn a_template_is_listed_with_its_state_and_its_reason_and_can_be_removed() {
    let forks = Forks::new(&config());
    assert!(forks.begin("a"));
    assert!(!forks.begin("a"), "somebody builds it");
    let about = list::About {
        language: "python".into(),
        shape: template().shape,
    };
    forks.describe("a", about);
    assert!(forks.remove("a").is_none(), "it is being built");
    forks.built("a", Err("no memory".into()));
    let list = forks.list();
    assert_eq!(list[0].language, "python");
    assert_eq!(list[0].reason.as_deref(), Some("no memory"));

    assert!(
        forks.begin("a"),
        "whoever asks for it does not wait for the next try"
    );
    forks.built("a", Ok(template()));
    forks.measured("a", 700);
    assert_eq!(forks.list()[0].fork_kib, Some(700));
    assert!(forks.remove("a").is_some());
    assert!(forks.list().is_empty());
}
