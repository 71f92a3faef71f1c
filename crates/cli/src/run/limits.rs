//! `--limit NAME=VALUE`, and the options of single limits.

use cloude_protocol::api::{CompileLimits, Limits};

use crate::args;
use crate::error::{QuantityError, UsageError};
use crate::quantity;

/// The names of the run stage's limits. Those of [`COMPILE`] exist with the prefix `compile.`, too.
const NAMES: &str = "wall_time, cpu_time, memory, vcpus, output, artifacts, disk, processes, open_files, file_size, stack";
const COMPILE: &str = "wall_time, cpu_time, processes, open_files, file_size, stack";

/// All limits of the arguments. Each may be given once.
pub fn limits(args: &args::Run) -> Result<Limits, UsageError> {
    let mut limits = Limits {
        wall_time_ms: args.timeout.map(|time| time.as_millis() as u64),
        output_bytes: args.output_limit,
        memory_bytes: args.memory.map(mib),
        vcpus: args.vcpus,
        compile: CompileLimits {
            wall_time_ms: args.compile_timeout.map(|time| time.as_millis() as u64),
            ..CompileLimits::default()
        },
        ..Limits::default()
    };
    for spec in &args.limits {
        let invalid = |reason: String| UsageError::Limit {
            spec: spec.clone(),
            reason,
        };
        let Some((name, value)) = spec.split_once('=') else {
            return Err(invalid(
                "expected NAME=VALUE, as in memory=512M or compile.wall_time=20s".to_owned(),
            ));
        };
        let place = match name.strip_prefix("compile.") {
            Some(name) => compile(&mut limits.compile, name).ok_or_else(|| unknown(COMPILE)),
            None => run(&mut limits, name).ok_or_else(|| unknown(NAMES)),
        };
        let given_twice = place
            .map_err(invalid)?
            .set(value)
            .map_err(|error| invalid(error.to_string()))?;
        if given_twice {
            let name = name.to_owned();
            return Err(UsageError::LimitTwice { name });
        }
    }
    Ok(limits)
}

fn unknown(names: &str) -> String {
    format!("no limit has this name; there are {names}")
}

/// A field of a request's limits, and how its value is written.
enum Place<'a> {
    Time(&'a mut Option<u64>),
    Bytes(&'a mut Option<u64>),
    Mebibytes(&'a mut Option<u64>),
    Count(&'a mut Option<u64>),
    SmallCount(&'a mut Option<u32>),
    Processors(&'a mut Option<u8>),
}

impl Place<'_> {
    /// True if it had a value already.
    fn set(self, value: &str) -> Result<bool, QuantityError> {
        Ok(match self {
            Place::Time(place) => {
                let time = quantity::duration(value)?;
                place.replace(time.as_millis() as u64).is_some()
            }
            Place::Bytes(place) => place.replace(quantity::bytes(value)?).is_some(),
            Place::Mebibytes(place) => place.replace(mib(quantity::mebibytes(value)?)).is_some(),
            Place::Count(place) => place.replace(count(value)?).is_some(),
            Place::SmallCount(place) => place.replace(count(value)?).is_some(),
            Place::Processors(place) => place.replace(count(value)?).is_some(),
        })
    }
}

fn count<T: std::str::FromStr>(value: &str) -> Result<T, QuantityError> {
    value.parse().map_err(|_| QuantityError::Count)
}

fn mib(mib: u64) -> u64 {
    mib.saturating_mul(1 << 20)
}

fn run<'a>(limits: &'a mut Limits, name: &str) -> Option<Place<'a>> {
    Some(match name {
        "wall_time" => Place::Time(&mut limits.wall_time_ms),
        "cpu_time" => Place::Time(&mut limits.cpu_time_ms),
        "memory" => Place::Mebibytes(&mut limits.memory_bytes),
        "vcpus" => Place::Processors(&mut limits.vcpus),
        "output" => Place::Bytes(&mut limits.output_bytes),
        "artifacts" => Place::Bytes(&mut limits.artifact_bytes),
        "disk" => Place::Bytes(&mut limits.disk_bytes),
        "processes" => Place::SmallCount(&mut limits.processes),
        "open_files" => Place::Count(&mut limits.open_files),
        "file_size" => Place::Bytes(&mut limits.file_bytes),
        "stack" => Place::Bytes(&mut limits.stack_bytes),
        _ => return None,
    })
}

fn compile<'a>(limits: &'a mut CompileLimits, name: &str) -> Option<Place<'a>> {
    Some(match name {
        "wall_time" => Place::Time(&mut limits.wall_time_ms),
        "cpu_time" => Place::Time(&mut limits.cpu_time_ms),
        "processes" => Place::SmallCount(&mut limits.processes),
        "open_files" => Place::Count(&mut limits.open_files),
        "file_size" => Place::Bytes(&mut limits.file_bytes),
        "stack" => Place::Bytes(&mut limits.stack_bytes),
        _ => return None,
    })
}
