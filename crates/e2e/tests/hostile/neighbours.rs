//! One tenant against another on the same server: what a VM learns of the VMs beside it and before it.

use cloude_e2e::cloude::LONGEST;
use cloude_protocol::api::Execution;

use crate::case::{Case, case, run};

const LONG: &[&str] = &["--timeout", LONGEST];

fn output(language: &str, code: &str) -> String {
    let execution: Execution = run(language, LONG, code);
    assert_eq!(execution.exit_code, Some(0), "{execution:?}");
    execution.stdout.to_text()
}

/// A case that runs a program twice, and whose outputs must differ.
fn differs(name: &str, naive: &str, language: &'static str, code: &'static str) -> Case {
    case(&format!("neighbour::{name}"), naive, move || {
        let (first, second) = (output(language, code), output(language, code));
        assert!(!first.trim().is_empty());
        assert_ne!(first, second, "two VMs have the same");
    })
}

pub fn cases() -> Vec<Case> {
    vec![
        differs(
            "random_numbers",
            "two forks of a template draw the same random numbers, and so the same keys",
            "bash",
            "head -c 32 /dev/urandom | od -An -tx1",
        ),
        differs(
            "random_numbers_of_an_interpreter",
            "the interpreter of a template was seeded once for all of its forks",
            "python",
            "import random, uuid, secrets; print(random.random(), uuid.uuid4(), secrets.token_hex())",
        ),
        differs(
            "hash_seeds",
            "collisions that one tenant finds stop another one's programs",
            "node",
            "console.log(Math.random(), require('crypto').randomUUID())",
        ),
        differs(
            "machine_ids",
            "two VMs pass for one machine",
            "bash",
            "cat /proc/sys/kernel/random/boot_id; hostname",
        ),
        case(
            "neighbour::files_of_the_last_tenant",
            "a VM is used again, with the files of its last tenant",
            || {
                let code = "cat /tmp/mark work/mark mark 2>/dev/null; for d in /tmp . $HOME; do echo x > $d/mark; done 2>/dev/null; true";
                assert_eq!(output("bash", code), "");
                assert_eq!(output("bash", code), "");
            },
        ),
        case(
            "neighbour::processes_of_the_last_tenant",
            "a VM is used again, with the processes of its last tenant",
            || {
                let code = "grep -alx neighbour-mark /proc/[0-9]*/comm 2>/dev/null; (printf neighbour-mark > /proc/self/comm; exec -a x sleep 1000) & true";
                assert_eq!(output("bash", code), "");
                assert_eq!(output("bash", code), "");
            },
        ),
        case(
            "neighbour::memory_of_the_last_tenant",
            "memory that the kernel hands out holds the last tenant's secrets",
            || {
                let write = "import ctypes\nb = ctypes.create_string_buffer(b'neighbour-secret-' * 4096 * 200)\nprint('written')";
                assert_eq!(output("python", write), "written\n");
                let read = "import mmap\nfound = 0\nfor i in range(64):\n  m = mmap.mmap(-1, 1 << 20)\n  found += m[:].count(b'neighbour-' + b'secret-')\nprint(found)";
                assert_eq!(output("python", read), "0\n");
            },
        ),
    ]
}
