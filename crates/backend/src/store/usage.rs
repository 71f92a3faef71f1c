//! The table of usage: sums over the finished executions of each owner.

use cloude_protocol::agent::StageResult;
use cloude_protocol::api::Execution;
use cloude_protocol::keys::Usage;
use rusqlite::{Connection, Row, params};

use crate::tenant::Tenant;

/// The usage of one owner, or of all in the order of their ids.
pub fn list(
    connection: &Connection,
    owner: Option<&Tenant>,
) -> Result<Vec<Usage>, rusqlite::Error> {
    let sql = "SELECT tenant, executions, vm_us, cpu_us, memory_mib_us FROM usage
               WHERE ?1 IS NULL OR tenant = ?1 ORDER BY tenant";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![owner.map(Tenant::id)], read)?;
    rows.collect()
}

/// Adds a finished execution to the usage of its owner.
pub fn add(
    connection: &Connection,
    owner: &Tenant,
    execution: &Execution,
) -> Result<(), rusqlite::Error> {
    let timings = &execution.timings;
    // An execution without a VM has no start.
    let vm_us = match timings.start_us {
        0 => 0,
        _ => timings.total_us.saturating_sub(timings.queue_us),
    };
    let cpu_us = |stage: Option<&StageResult>| stage.map_or(0, |stage| stage.cpu_time_us);
    let own = execution.compile.as_ref().filter(|compile| !compile.shared);
    let compile = own.map(|compile| &compile.result);
    let cpu_us = cpu_us(execution.run.as_ref()) + cpu_us(compile);
    let sql = "INSERT INTO usage (tenant, executions, vm_us, cpu_us, memory_mib_us) VALUES (?1, 1, ?2, ?3, ?4)
               ON CONFLICT (tenant) DO UPDATE SET
                   executions = executions + 1,
                   vm_us = vm_us + excluded.vm_us,
                   cpu_us = cpu_us + excluded.cpu_us,
                   memory_mib_us = memory_mib_us + excluded.memory_mib_us";
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    connection.prepare_cached(sql)?.execute(params![
        owner.id(),
        number(vm_us),
        number(cpu_us),
        number(vm_us.saturating_mul(execution.memory_bytes >> 20)),
    ])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Usage, rusqlite::Error> {
    let number = |column| -> Result<u64, rusqlite::Error> {
        Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
    };
    Ok(Usage {
        key: row.get(0)?,
        executions: number(1)?,
        vm_ms: number(2)? / 1000,
        cpu_ms: number(3)? / 1000,
        memory_mib_s: number(4)? / 1_000_000,
    })
}
