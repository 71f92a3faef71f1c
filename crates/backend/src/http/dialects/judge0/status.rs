//! The statuses of a submission.

use serde::Serialize;

/// A status, as `GET /statuses` lists it.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
pub struct Status {
    pub id: u8,
    pub description: &'static str,
}

/// All statuses, in the order of their ids.
pub const ALL: [Status; 14] = [
    IN_QUEUE,
    PROCESSING,
    ACCEPTED,
    WRONG_ANSWER,
    TIME_LIMIT,
    COMPILATION_ERROR,
    SEGMENT,
    FILE_SIZE,
    ARITHMETIC,
    ABORTED,
    EXIT_CODE,
    OTHER,
    INTERNAL,
    EXEC_FORMAT,
];

pub const IN_QUEUE: Status = of(1, "In Queue");
pub const PROCESSING: Status = of(2, "Processing");
pub const ACCEPTED: Status = of(3, "Accepted");
pub const WRONG_ANSWER: Status = of(4, "Wrong Answer");
pub const TIME_LIMIT: Status = of(5, "Time Limit Exceeded");
pub const COMPILATION_ERROR: Status = of(6, "Compilation Error");
pub const SEGMENT: Status = of(7, "Runtime Error (SIGSEGV)");
pub const FILE_SIZE: Status = of(8, "Runtime Error (SIGXFSZ)");
pub const ARITHMETIC: Status = of(9, "Runtime Error (SIGFPE)");
pub const ABORTED: Status = of(10, "Runtime Error (SIGABRT)");
/// A non-zero exit code.
pub const EXIT_CODE: Status = of(11, "Runtime Error (NZEC)");
pub const OTHER: Status = of(12, "Runtime Error (Other)");
pub const INTERNAL: Status = of(13, "Internal Error");
pub const EXEC_FORMAT: Status = of(14, "Exec Format Error");

const fn of(id: u8, description: &'static str) -> Status {
    Status { id, description }
}

/// The status of a program that a signal ended.
pub fn of_signal(signal: i32) -> Status {
    match signal {
        libc::SIGSEGV => SEGMENT,
        libc::SIGXFSZ => FILE_SIZE,
        libc::SIGFPE => ARITHMETIC,
        libc::SIGABRT => ABORTED,
        _ => OTHER,
    }
}
