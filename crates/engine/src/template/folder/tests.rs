use std::os::unix::fs::FileExt;
use std::time::Duration;

use cloude_vmm::snapshot::{CpuKey, Key, MachineState, VmState, memory_digest};

use super::*;

const MIB: u64 = 1 << 20;

fn origin(initramfs: &str) -> Origin {
    Origin {
        kernel: "kernel".into(),
        initramfs: initramfs.into(),
    }
}

/// A snapshot of a machine without vCPUs: what the disk sees of any.
pub(in crate::template) fn snapshot(of: &Origin) -> Snapshot {
    let memory = tempfile::tempfile().unwrap();
    memory.set_len(MIB).unwrap();
    memory.write_all_at(&[7; 5000], 12_288).unwrap();
    let none = vec![0_u8; 520]; // struct kvm_irqchip of include/uapi/linux/kvm.h, in bytes.
    let state: MachineState = serde_json::from_value(serde_json::json!({
        "vcpus": [],
        "vm": { "clock": 0, "irqchips": [none, none, none] },
        "devices": [],
    }))
    .unwrap();
    let record = VmState {
        key: Key {
            origin: of.clone(),
            cpu: CpuKey::default(),
            vcpus: 1,
            memory_mib: 1,
            devices: Vec::new(),
        },
        memory_digest: memory_digest(&memory).unwrap(),
        state,
    };
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&record.encode().unwrap(), 0).unwrap();
    Snapshot {
        memory: Arc::new(memory),
        state: Arc::new(file),
        origin: of.clone(),
    }
}

fn disk() -> (tempfile::TempDir, TemplateFolder) {
    let dir = tempfile::tempdir().unwrap();
    let disk = TemplateFolder::new(dir.path());
    (dir, disk)
}

fn names(disk: &TemplateFolder) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(&disk.dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    names.sort();
    names
}

#[test]
fn a_template_that_was_kept_is_loaded_and_its_zero_pages_take_no_room() {
    let (_dir, disk) = disk();
    let bytes = disk
        .store("one", &snapshot(&origin("one")), "secret", 8)
        .unwrap();
    assert_eq!(bytes, 8192, "two pages have data");

    let (loaded, token) = disk.load("one", &origin("one")).unwrap();
    assert_eq!(token, "secret");

    assert_eq!(loaded.memory.metadata().unwrap().len(), MIB);
    let mut byte = [0];
    loaded.memory.read_exact_at(&mut byte, 12_288).unwrap();
    assert_eq!(byte, [7]);
    assert_eq!(names(&disk), ["one"]);
}

#[test]
fn what_was_never_kept_is_not_there_and_nothing_is_set_aside() {
    let (_dir, disk) = disk();
    assert!(disk.load("one", &origin("one")).is_none());
    assert!(!disk.dir.exists());
}

#[test]
fn a_template_of_another_origin_is_set_aside() {
    let (_dir, disk) = disk();
    disk.store("one", &snapshot(&origin("other")), "secret", 8)
        .unwrap();
    assert!(disk.load("one", &origin("one")).is_none());
    assert_eq!(names(&disk), ["one.damaged"]);
}

#[test]
fn one_flipped_bit_anywhere_is_found() {
    let (_dir, disk) = disk();
    let saved = snapshot(&origin("one"));
    let state_len = saved.state.metadata().unwrap().len();
    let token_len = "secret ".len() as u64 + 64; // SHA-256 in hexadecimal.
    for (name, len) in [(STATE, state_len), (MEMORY, MIB), (TOKEN, token_len)] {
        // A step that is prime, so that the places fall on every part of a page and of the record.
        let places = (0..len).step_by((len / 100).max(1) as usize | 1);
        for at in places {
            disk.store("one", &saved, "secret", 8).unwrap();
            let file = File::options()
                .read(true)
                .write(true)
                .open(disk.dir.join("one").join(name))
                .unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
            let loaded = disk.load("one", &origin("one"));
            assert!(loaded.is_none(), "{name} at {at} of {len}");
        }
    }
}

#[test]
fn a_file_that_was_cut_or_is_gone_is_found() {
    let (_dir, disk) = disk();
    for name in [STATE, MEMORY, TOKEN] {
        for len in [Some(0), Some(50), None] {
            disk.store("one", &snapshot(&origin("one")), "secret", 8)
                .unwrap();
            let path = disk.dir.join("one").join(name);
            match len {
                Some(len) => File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(len)
                    .unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            assert!(disk.load("one", &origin("one")).is_none(), "{name} {len:?}");
        }
    }
}

#[test]
fn of_what_was_set_aside_a_few_are_kept() {
    let (_dir, disk) = disk();
    for id in ["a", "b", "c", "d"] {
        disk.store(id, &snapshot(&origin(id)), "secret", 8).unwrap();
        disk.set_aside(id, "a test");
    }
    assert_eq!(names(&disk).len(), MAX_DAMAGED);
}

#[test]
fn what_a_killed_writer_left_is_removed() {
    let (_dir, disk) = disk();
    std::fs::create_dir_all(disk.dir.join("one.partial")).unwrap();
    std::fs::write(disk.dir.join("one.partial").join(MEMORY), "half").unwrap();
    assert!(disk.load("one", &origin("one")).is_none());
    disk.store("one", &snapshot(&origin("one")), "secret", 8)
        .unwrap();
    assert_eq!(names(&disk), ["one"]);
    assert!(disk.load("one", &origin("one")).is_some());
}

#[test]
fn the_template_that_was_not_used_for_longest_goes_first() {
    let (_dir, disk) = disk();
    for (id, age) in [("a", 300), ("b", 200)] {
        disk.store(id, &snapshot(&origin(id)), "secret", 2).unwrap();
        let used = SystemTime::now() - Duration::from_secs(age);
        let dir = File::open(disk.dir.join(id)).unwrap();
        dir.set_modified(used).unwrap();
    }
    // Loading is use.
    assert!(disk.load("a", &origin("a")).is_some());
    disk.store("c", &snapshot(&origin("c")), "secret", 2)
        .unwrap();
    assert_eq!(names(&disk), ["a", "c"]);
}

#[test]
fn a_removed_template_is_gone_and_removing_it_again_is_no_error() {
    let (_dir, disk) = disk();
    disk.store("one", &snapshot(&origin("one")), "secret", 8)
        .unwrap();
    assert!(disk.remove("one").unwrap());
    assert!(!disk.remove("one").unwrap());
    assert!(disk.load("one", &origin("one")).is_none());
}

#[test]
fn the_token_is_readable_by_our_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, disk) = disk();
    disk.store("one", &snapshot(&origin("one")), "secret", 8)
        .unwrap();
    let token = disk.dir.join("one").join(TOKEN).metadata().unwrap();
    assert_eq!(token.permissions().mode() & 0o777, 0o600);
}
