//! The output of results in the table `outputs`: rows of raw bytes, so that neither JSON nor a copy of a whole stream is
//! made of it.

use std::sync::Arc;

use cloude_protocol::Data;
use cloude_protocol::agent::{StageName, Stream};
use cloude_protocol::api::Execution;
use rusqlite::{Connection, OptionalExtension, params};

use super::row::{Ended, output_bytes, output_of, without_output};

/// Output up to this length is part of the JSON of its result, which is one row instead of two.
const INLINE: usize = 16 << 10;
/// Bytes of one row. SQLite copies the row that it writes.
const PART: usize = 1 << 20;

/// The stream of the order of events.
pub const ORDER: i64 = 4;
/// The stream of the first artifact; the others follow.
const FIRST_FILE: i64 = 16;

/// The number of the stream of an artifact, by its place in [`Execution::artifacts`].
pub fn file_stream(index: usize) -> i64 {
    FIRST_FILE.saturating_add(i64::try_from(index).unwrap_or(i64::MAX))
}

/// A result as it is stored.
pub struct Stored<'a> {
    /// The result without the output that is stored in `outputs`.
    pub json: String,
    /// Streams for `outputs`, by their number in [`streams`].
    pub outputs: Vec<(i64, &'a [u8])>,
}

impl<'a> Stored<'a> {
    /// `limit`: maximum bytes of output and artifacts. Without room for all neither is stored, and `error` says so.
    pub fn of(ended: &'a Ended, limit: usize) -> Result<Self, serde_json::Error> {
        let result = &*ended.result;
        let output = output_bytes(result);
        if ended.bytes() > limit {
            return Ok(Stored {
                json: serde_json::to_string(&without_room(ended, limit))?,
                outputs: Vec::new(),
            });
        }
        let is_inline = output <= INLINE;
        let json = match is_inline {
            true => serde_json::to_string(result)?,
            false => serde_json::to_string(&without_output(result))?,
        };
        let mut outputs: Vec<(i64, &[u8])> = match is_inline {
            true => Vec::new(),
            false => (0..).zip(streams(result)).collect(),
        };
        outputs.extend(ended.order.as_deref().map(|order| (ORDER, order)));
        let files = ended.files.iter().enumerate();
        outputs.extend(files.map(|(index, file)| (file_stream(index), &file[..])));
        Ok(Stored { json, outputs })
    }

    /// Bytes of the rows in `outputs`.
    pub fn bytes(&self) -> i64 {
        self.outputs
            .iter()
            .map(|(_, bytes)| bytes.len() as i64)
            .sum()
    }

    /// Writes the rows of `outputs`.
    pub fn write(&self, connection: &Connection, id: &str) -> Result<(), rusqlite::Error> {
        let mut insert = connection.prepare_cached(
            "INSERT OR REPLACE INTO outputs (job, stream, part, data) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for (stream, bytes) in &self.outputs {
            for (part, data) in (0_i64..).zip(bytes.chunks(PART)) {
                insert.execute(params![id, stream, part, data])?;
            }
        }
        Ok(())
    }
}

/// The result with its output. `bytes`: those that `outputs` holds of it.
pub fn read(
    connection: &Connection,
    mut result: Execution,
    bytes: i64,
) -> Result<Arc<Execution>, rusqlite::Error> {
    if bytes == 0 {
        return Ok(Arc::new(result));
    }
    let mut select = connection.prepare_cached(
        "SELECT stream, data FROM outputs WHERE job = ?1 AND stream < 4 ORDER BY stream, part",
    )?;
    let mut rows = select.query(params![result.id.clone()])?;
    let mut whole: [Vec<u8>; 4] = Default::default();
    while let Some(row) = rows.next()? {
        let stream: i64 = row.get(0)?;
        if let Some(stream) = whole.get_mut(stream as usize) {
            stream.extend_from_slice(row.get_ref(1)?.as_blob()?);
        }
    }
    // Output that is part of the JSON has no rows.
    if whole.iter().all(Vec::is_empty) {
        return Ok(Arc::new(result));
    }
    let [stdout, stderr, compile_stdout, compile_stderr] = whole.map(|mut stream| {
        stream.shrink_to_fit();
        Data(stream)
    });
    (result.stdout, result.stderr) = (stdout, stderr);
    if let Some(compile) = &mut result.compile {
        (compile.stdout, compile.stderr) = (compile_stdout, compile_stderr);
    }
    Ok(Arc::new(result))
}

/// The part of a stream that has the byte at `at`, with the position of the part's first byte; `None` beyond the end.
pub fn part(
    connection: &Connection,
    id: &str,
    stream: i64,
    at: u64,
) -> Result<Option<(u64, Vec<u8>)>, rusqlite::Error> {
    let part = at / PART as u64;
    let mut select = connection
        .prepare_cached("SELECT data FROM outputs WHERE job = ?1 AND stream = ?2 AND part = ?3")?;
    let part_number = i64::try_from(part).unwrap_or(i64::MAX);
    let data = select
        .query_row(params![id, stream, part_number], |row| row.get(0))
        .optional()?;
    Ok(data.map(|data| (part * PART as u64, data)))
}

/// A whole stream; empty if there is none.
pub fn whole(connection: &Connection, id: &str, stream: i64) -> Result<Vec<u8>, rusqlite::Error> {
    let mut select = connection
        .prepare_cached("SELECT data FROM outputs WHERE job = ?1 AND stream = ?2 ORDER BY part")?;
    let mut rows = select.query(params![id, stream])?;
    let mut whole = Vec::new();
    while let Some(row) = rows.next()? {
        whole.extend_from_slice(row.get_ref(0)?.as_blob()?);
    }
    Ok(whole)
}

/// A result that is stored without its output and its artifacts.
fn without_room(ended: &Ended, limit: usize) -> Execution {
    let (result, bytes) = (&ended.result, ended.bytes());
    tracing::error!(
        id = result.id,
        bytes,
        limit,
        "a result is stored without its output: it is too large"
    );
    let error = format!(
        "the output was not stored: it has {bytes} bytes, and the job store accepts {limit}"
    );
    let mut slim = without_output(result);
    slim.artifacts_dropped += slim.artifacts.len() as u64;
    slim.artifacts = Vec::new();
    slim.error = Some(match &result.error {
        Some(earlier) => format!("{earlier}; {error}"),
        None => error,
    });
    slim
}

/// The streams of a result in the order of their numbers.
fn streams(result: &Execution) -> [&[u8]; 4] {
    [
        (StageName::Run, Stream::Stdout),
        (StageName::Run, Stream::Stderr),
        (StageName::Compile, Stream::Stdout),
        (StageName::Compile, Stream::Stderr),
    ]
    .map(|(stage, stream)| &output_of(result, stage, stream).0[..])
}
