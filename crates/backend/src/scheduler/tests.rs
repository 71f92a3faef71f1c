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
    let first = scheduler.enter(1).unwrap().admitted(vcpus(6)).await;
    let mut second = Box::pin(scheduler.enter(1).unwrap().admitted(vcpus(3)));
    assert!(poll!(&mut second).is_pending(), "6 + 3 vCPUs are over 8");
    drop(first);
    let second = second.now_or_never();
    assert!(second.is_some());
    assert_eq!(scheduler.load().vcpus, 3);
}

#[tokio::test]
async fn a_vm_with_more_vcpus_than_the_limit_runs_alone() {
    let scheduler = scheduler(9, 100, 9);
    let small = scheduler.enter(1).unwrap().admitted(vcpus(1)).await;
    let mut large = Box::pin(scheduler.enter(1).unwrap().admitted(vcpus(16)));
    assert!(poll!(&mut large).is_pending());
    drop(small);
    assert!(large.now_or_never().is_some());
}

#[tokio::test]
async fn an_uncounted_slot_waits_and_refuses_no_client() {
    let scheduler = scheduler(1, 100, 1);
    let running = scheduler.enter(1).unwrap().admitted(mib(1)).await;
    let mut own = Box::pin(scheduler.enter_uncounted().admitted(mib(1)));
    assert!(poll!(&mut own).is_pending());
    assert_eq!(scheduler.load().waiting, 0);
    let queued = scheduler.enter(1).unwrap();
    assert_eq!(scheduler.load().waiting, 1);
    drop(running);
    drop(own.now_or_never().unwrap());
    drop(queued);
    assert_eq!(scheduler.load().waiting, 0);
}

#[tokio::test]
async fn a_request_for_an_image_takes_no_queue_slot() {
    let scheduler = scheduler(1, 100, 1);
    let for_image = scheduler.enter_for_image(900).unwrap();
    let queued = scheduler.enter(900).unwrap();
    let full = scheduler.enter_for_image(900).unwrap_err();
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
    let running = scheduler.enter(1).unwrap().admitted(mib(1)).await;
    let mut for_image = Box::pin(scheduler.enter_for_image(1).unwrap().admitted(mib(1)));
    assert!(poll!(&mut for_image).is_pending());
    let load = scheduler.load();
    assert_eq!((load.waiting, load.for_image), (1, 0));
    drop(running);
    assert!(for_image.now_or_never().is_some());
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let scheduler = scheduler(1, 100, 2);
    let _first = scheduler.enter(1).unwrap();
    let _second = scheduler.enter(1).unwrap();
    let full = scheduler.enter(1).unwrap_err();
    assert_eq!((full.waiting, full.retry_after_s), (2, 3));
}

#[tokio::test]
async fn reserved_memory_blocks_the_second_vm_but_not_the_first() {
    let scheduler = scheduler(9, 100, 9);
    scheduler.reserve(90);
    let first = scheduler.enter(1).unwrap().admitted(mib(50)).await;
    let mut second = Box::pin(scheduler.enter(1).unwrap().admitted(mib(40)));
    assert!(poll!(&mut second).is_pending());
    scheduler.reserve(10);
    let second = second.now_or_never();
    assert!(second.is_some(), "it fits beside what is still reserved");
    drop(first);
}

#[tokio::test]
async fn the_bytes_of_waiting_requests_are_bounded() {
    let scheduler = scheduler(1, 100, 10);
    let first = scheduler.enter(900).unwrap();
    assert!(scheduler.enter(200).is_err());
    drop(first);
    assert!(scheduler.enter(200).is_ok());
}

#[tokio::test]
async fn vms_and_memory_are_bounded() {
    let scheduler = scheduler(2, 100, 10);
    let first = scheduler.enter(0).unwrap().admitted(mib(60)).await;
    let mut second = Box::pin(scheduler.enter(0).unwrap().admitted(mib(60)));
    assert!(
        poll!(&mut second).is_pending(),
        "60 + 60 MiB do not fit in 100"
    );
    drop(first);
    let _second = second.await;
    let _third = scheduler.enter(0).unwrap().admitted(mib(10)).await;
    let mut fourth = Box::pin(scheduler.enter(0).unwrap().admitted(mib(10)));
    assert!(poll!(&mut fourth).is_pending(), "two VMs at once");
    let load = scheduler.load();
    assert_eq!((load.running, load.waiting, load.memory_mib), (2, 1, 70));
}

#[tokio::test]
async fn no_waiter_overtakes_the_first() {
    let scheduler = scheduler(3, 100, 10);
    let running = scheduler.enter(0).unwrap().admitted(mib(50)).await;
    let mut large = Box::pin(scheduler.enter(0).unwrap().admitted(mib(80)));
    assert!(poll!(&mut large).is_pending());
    let mut small = Box::pin(scheduler.enter(0).unwrap().admitted(mib(10)));
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
    let _running = scheduler.enter(0).unwrap().admitted(mib(50)).await;
    let mut large = Box::pin(scheduler.enter(0).unwrap().admitted(mib(80)));
    assert!(poll!(&mut large).is_pending());
    let mut small = Box::pin(scheduler.enter(0).unwrap().admitted(mib(10)));
    assert!(poll!(&mut small).is_pending());
    drop(large);
    let _small = small.now_or_never().unwrap();
    assert_eq!(scheduler.load().waiting, 0);
}

#[tokio::test]
async fn an_unclaimed_permit_is_released() {
    let scheduler = scheduler(1, 100, 10);
    let first = scheduler.enter(0).unwrap().admitted(mib(50)).await;
    let mut second = Box::pin(scheduler.enter(0).unwrap().admitted(mib(50)));
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
