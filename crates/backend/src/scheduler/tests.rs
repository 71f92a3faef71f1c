use futures_util::{FutureExt, poll};

use super::*;

fn scheduler(vms: usize, memory_mib: u64, queue: usize) -> Scheduler {
    Scheduler::new(Capacity {
        vms,
        vcpus: 8,
        memory_mib,
        queue,
        queue_bytes: 1000,
    })
}

fn local() -> Tenant {
    Tenant::local()
}

fn full(error: EnterError) -> QueueFull {
    match error {
        EnterError::Full(full) => full,
        EnterError::Quota(quota) => panic!("{quota}"),
    }
}

fn mib(memory_mib: u64) -> Demand {
    Demand {
        memory_mib,
        vcpus: 1,
    }
}

fn vcpus(vcpus: usize) -> Demand {
    Demand {
        memory_mib: 1,
        vcpus,
    }
}

#[tokio::test]
async fn vcpus_of_all_vms_together_are_bounded() {
    let scheduler = scheduler(9, 100, 9);
    let first = scheduler
        .enter(&local(), 1)
        .unwrap()
        .admitted(vcpus(6))
        .await;
    let mut second = Box::pin(scheduler.enter(&local(), 1).unwrap().admitted(vcpus(3)));
    assert!(poll!(&mut second).is_pending(), "6 + 3 vCPUs are over 8");
    drop(first);
    let second = second.now_or_never();
    assert!(second.is_some());
    assert_eq!(scheduler.load().vcpus, 3);
}

#[tokio::test]
async fn a_vm_with_more_vcpus_than_the_limit_runs_alone() {
    let scheduler = scheduler(9, 100, 9);
    let small = scheduler
        .enter(&local(), 1)
        .unwrap()
        .admitted(vcpus(1))
        .await;
    let mut large = Box::pin(scheduler.enter(&local(), 1).unwrap().admitted(vcpus(16)));
    assert!(poll!(&mut large).is_pending());
    drop(small);
    assert!(large.now_or_never().is_some());
}

#[tokio::test]
async fn an_uncounted_slot_waits_and_refuses_no_client() {
    let scheduler = scheduler(1, 100, 1);
    let running = scheduler.enter(&local(), 1).unwrap().admitted(mib(1)).await;
    let mut own = Box::pin(scheduler.enter_uncounted().admitted(mib(1)));
    assert!(poll!(&mut own).is_pending());
    assert_eq!(scheduler.load().waiting, 0);
    let queued = scheduler.enter(&local(), 1).unwrap();
    assert_eq!(scheduler.load().waiting, 1);
    drop(running);
    drop(own.now_or_never().unwrap());
    drop(queued);
    assert_eq!(scheduler.load().waiting, 0);
}

#[tokio::test]
async fn a_request_for_an_image_takes_no_queue_slot() {
    let scheduler = scheduler(1, 100, 1);
    let for_image = scheduler.enter_for_image(&local(), 900).unwrap();
    let queued = scheduler.enter(&local(), 900).unwrap();
    let full = full(scheduler.enter_for_image(&local(), 900).unwrap_err());
    assert_eq!(full.waiting, 1, "the requests for images are limited, too");
    let load = scheduler.load();
    assert_eq!((load.waiting, load.for_image), (1, 1));
    drop((for_image, queued));
    let load = scheduler.load();
    assert_eq!((load.waiting, load.for_image), (0, 0));
}

#[tokio::test]
async fn a_request_for_an_image_joins_the_queue_for_its_vm() {
    let scheduler = scheduler(1, 100, 1);
    let running = scheduler.enter(&local(), 1).unwrap().admitted(mib(1)).await;
    let mut for_image = Box::pin(
        scheduler
            .enter_for_image(&local(), 1)
            .unwrap()
            .admitted(mib(1)),
    );
    assert!(poll!(&mut for_image).is_pending());
    let load = scheduler.load();
    assert_eq!((load.waiting, load.for_image), (1, 0));
    drop(running);
    assert!(for_image.now_or_never().is_some());
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let scheduler = scheduler(1, 100, 2);
    let _first = scheduler.enter(&local(), 1).unwrap();
    let _second = scheduler.enter(&local(), 1).unwrap();
    let full = full(scheduler.enter(&local(), 1).unwrap_err());
    assert_eq!((full.waiting, full.retry_after_s), (2, 3));
}

#[tokio::test]
async fn reserved_memory_blocks_the_second_vm_but_not_the_first() {
    let scheduler = scheduler(9, 100, 9);
    scheduler.reserve(90);
    let first = scheduler
        .enter(&local(), 1)
        .unwrap()
        .admitted(mib(50))
        .await;
    let mut second = Box::pin(scheduler.enter(&local(), 1).unwrap().admitted(mib(40)));
    assert!(poll!(&mut second).is_pending());
    scheduler.reserve(10);
    let second = second.now_or_never();
    assert!(second.is_some(), "it fits beside what is still reserved");
    drop(first);
}

#[tokio::test]
async fn the_bytes_of_waiting_requests_are_bounded() {
    let scheduler = scheduler(1, 100, 10);
    let first = scheduler.enter(&local(), 900).unwrap();
    assert!(scheduler.enter(&local(), 200).is_err());
    drop(first);
    assert!(scheduler.enter(&local(), 200).is_ok());
}

#[tokio::test]
async fn vms_and_memory_are_bounded() {
    let scheduler = scheduler(2, 100, 10);
    let first = scheduler
        .enter(&local(), 0)
        .unwrap()
        .admitted(mib(60))
        .await;
    let mut second = Box::pin(scheduler.enter(&local(), 0).unwrap().admitted(mib(60)));
    assert!(
        poll!(&mut second).is_pending(),
        "60 + 60 MiB do not fit in 100"
    );
    drop(first);
    let _second = second.await;
    let _third = scheduler
        .enter(&local(), 0)
        .unwrap()
        .admitted(mib(10))
        .await;
    let mut fourth = Box::pin(scheduler.enter(&local(), 0).unwrap().admitted(mib(10)));
    assert!(poll!(&mut fourth).is_pending(), "two VMs at once");
    let load = scheduler.load();
    assert_eq!((load.running, load.waiting, load.memory_mib), (2, 1, 70));
}

#[tokio::test]
async fn no_waiter_overtakes_the_first() {
    let scheduler = scheduler(3, 100, 10);
    let running = scheduler
        .enter(&local(), 0)
        .unwrap()
        .admitted(mib(50))
        .await;
    let mut large = Box::pin(scheduler.enter(&local(), 0).unwrap().admitted(mib(80)));
    assert!(poll!(&mut large).is_pending());
    let mut small = Box::pin(scheduler.enter(&local(), 0).unwrap().admitted(mib(10)));
    assert!(poll!(&mut small).is_pending());
    drop(running);
    let large = large.now_or_never().unwrap();
    let _small = small.now_or_never().unwrap();
    drop(large);
    assert_eq!(scheduler.load().memory_mib, 10);
}

#[tokio::test]
async fn a_cancelled_waiter_delays_no_other() {
    let scheduler = scheduler(3, 100, 10);
    let _running = scheduler
        .enter(&local(), 0)
        .unwrap()
        .admitted(mib(50))
        .await;
    let mut large = Box::pin(scheduler.enter(&local(), 0).unwrap().admitted(mib(80)));
    assert!(poll!(&mut large).is_pending());
    let mut small = Box::pin(scheduler.enter(&local(), 0).unwrap().admitted(mib(10)));
    assert!(poll!(&mut small).is_pending());
    drop(large);
    let _small = small.now_or_never().unwrap();
    assert_eq!(scheduler.load().waiting, 0);
}

#[tokio::test]
async fn an_unclaimed_permit_is_released() {
    let scheduler = scheduler(1, 100, 10);
    let first = scheduler
        .enter(&local(), 0)
        .unwrap()
        .admitted(mib(50))
        .await;
    let mut second = Box::pin(scheduler.enter(&local(), 0).unwrap().admitted(mib(50)));
    assert!(poll!(&mut second).is_pending());
    drop(first);
    drop(second);
    assert_eq!(
        scheduler.load(),
        Load {
            waiting: 0,
            for_image: 0,
            running: 0,
            vcpus: 0,
            memory_mib: 0
        }
    );
}

fn key(id: &str) -> Tenant {
    Tenant::of_key(id)
}

fn with(quotas: Quotas) -> Scheduler {
    let capacity = Capacity {
        vms: 4,
        vcpus: 64,
        memory_mib: 4096,
        queue: 8,
        queue_bytes: 1000,
    };
    Scheduler::with_quotas(capacity, quotas)
}

#[tokio::test]
async fn a_tenant_that_fills_the_queue_refuses_itself_only() {
    let scheduler = scheduler(1, 100, 8);
    let mut slots = Vec::new();
    while let Ok(slot) = scheduler.enter(&key("greedy"), 1) {
        slots.push(slot);
    }
    assert_eq!(slots.len(), 8);
    for _ in 0..4 {
        slots.push(scheduler.enter(&key("modest"), 1).unwrap());
    }
    let refused = scheduler.enter(&key("modest"), 1);
    assert!(refused.is_err(), "half of the queue is its share");
    slots.push(scheduler.enter(&key("third"), 1).unwrap());
    assert!(scheduler.enter(&key("greedy"), 1).is_err());
}

#[tokio::test]
async fn a_tenant_that_fills_the_bytes_refuses_itself_only() {
    let scheduler = scheduler(1, 100, 8);
    let _large = scheduler.enter(&key("greedy"), 1000).unwrap();
    assert!(scheduler.enter(&key("greedy"), 1).is_err());
    let _fits = scheduler.enter(&key("modest"), 400).unwrap();
    assert!(scheduler.enter(&key("modest"), 200).is_err());
}

#[tokio::test]
async fn a_tenant_waits_for_one_vm_of_another_not_for_its_queue() {
    let scheduler = scheduler(1, 4096, 100);
    let running = scheduler.enter(&key("a"), 1).unwrap().admitted(mib(512));
    let running = running.await;
    let mut queued = Vec::new();
    for _ in 0..50 {
        let waits = Box::pin(scheduler.enter(&key("a"), 1).unwrap().admitted(mib(512)));
        queued.push(waits);
        assert!(poll!(queued.last_mut().unwrap()).is_pending());
    }
    let mut other = Box::pin(scheduler.enter(&key("b"), 1).unwrap().admitted(mib(512)));
    assert!(poll!(&mut other).is_pending());
    drop(running);
    let first = queued.remove(0).now_or_never().unwrap();
    assert!(poll!(&mut other).is_pending(), "one VM at once");
    drop(first);
    assert!(other.now_or_never().is_some());
}

#[tokio::test]
async fn quotas_of_a_tenant_hold_up_no_other() {
    for quotas in [
        Quotas {
            concurrent: 1,
            ..Quotas::default()
        },
        Quotas {
            memory_mib: 800,
            ..Quotas::default()
        },
    ] {
        let scheduler = with(quotas);
        let running = scheduler.enter(&key("a"), 1).unwrap().admitted(mib(512));
        let running = running.await;
        let mut second = Box::pin(scheduler.enter(&key("a"), 1).unwrap().admitted(mib(512)));
        assert!(poll!(&mut second).is_pending(), "{quotas:?}");
        let other = scheduler.enter(&key("b"), 1).unwrap().admitted(mib(512));
        let other = other.now_or_never();
        assert!(other.is_some(), "{quotas:?}");
        drop(running);
        assert!(second.now_or_never().is_some(), "{quotas:?}");
    }
}

#[tokio::test]
async fn a_quota_error_names_the_quota() {
    let scheduler = with(Quotas {
        queued: 2,
        ..Quotas::default()
    });
    let _slots = [1, 1].map(|bytes| scheduler.enter(&key("a"), bytes).unwrap());
    let error = scheduler.enter(&key("a"), 1).unwrap_err().to_string();
    assert!(error.contains("`quota.queued` is 2"), "{error}");
    assert!(scheduler.enter(&key("b"), 1).is_ok());

    let scheduler = with(Quotas {
        requests_per_s: 1,
        ..Quotas::default()
    });
    drop(scheduler.enter(&key("a"), 1).unwrap());
    let error = scheduler.enter(&key("a"), 1).unwrap_err().to_string();
    assert!(error.contains("`quota.requests_per_s` is 1"), "{error}");
    assert!(scheduler.enter(&key("b"), 1).is_ok());
}

#[tokio::test]
async fn a_build_of_an_image_fills_no_tenants_queue() {
    let scheduler = scheduler(1, 100, 2);
    let _builds = [1, 1].map(|bytes| scheduler.enter_for_image(&key("a"), bytes).unwrap());
    assert!(scheduler.enter_for_image(&key("a"), 1).is_err());
    assert!(scheduler.enter_for_image(&key("b"), 1).is_ok());
    assert!(scheduler.enter(&key("a"), 1).is_ok());
}

#[tokio::test]
async fn waiters_that_left_take_no_memory() {
    let scheduler = scheduler(1, 100, 10);
    let _running = scheduler
        .enter(&local(), 0)
        .unwrap()
        .admitted(mib(50))
        .await;
    for _ in 0..100 {
        let mut waits = Box::pin(scheduler.enter(&local(), 0).unwrap().admitted(mib(50)));
        assert!(poll!(&mut waits).is_pending());
    }
    let state = scheduler.shared.lock();
    let shown = format!("{:?}", state.waiters);
    assert!(!shown.contains("Waiter"), "{shown}");
}
