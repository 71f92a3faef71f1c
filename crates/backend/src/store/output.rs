//! The output of results in the table `outputs`: rows of raw bytes, so that neither JSON nor a copy of a whole stream is
//! made of it.

use std::sync::Arc;

use cloude_protocol::Data;
use cloude_protocol::api::{CompileReport, Execution};
use rusqlite::{Connection, params};

use super::row::{output_bytes, without_output};

/// Output up to this length is part of the JSON of its result, which is one row instead of two.
const INLINE: usize = 16 << 10;
/// Bytes of one row. SQLite copies the row that it writes.
const PART: usize = 1 << 20;

/// A result as it is stored.
pub struct Stored<'a> {
    /// The result without the output that is stored in `outputs`.
    pub json: String,
    /// Streams for `outputs`, by their number in [`streams`].
    pub outputs: Vec<(i64, &'a [u8])>,
}

impl<'a> Stored<'a> {
    /// `limit`: maximum bytes of output. Output beyond it is not stored, and `error` says so.
    pub fn of(result: &'a Execution, limit: usize) -> Result<Self, serde_json::Error> {
        let bytes = output_bytes(result);
        if bytes <= INLINE.min(limit) {
            return Ok(Stored {
                json: serde_json::to_string(result)?,
                outputs: Vec::new(),
            });
        }
        let mut slim = without_output(result);
        if bytes > limit {
            tracing::error!(
                id = result.id,
                bytes,
                limit,
                "a result is stored without its output: it is too large"
            );
            let error = format!(
                "the output was not stored: it has {bytes} bytes, and the job store accepts {limit}"
            );
            slim.error = Some(match &result.error {
                Some(earlier) => format!("{earlier}; {error}"),
                None => error,
            });
        }
        let outputs = match bytes > limit {
            true => Vec::new(),
            false => (0..).zip(streams(result)).collect(),
        };
        Ok(Stored {
            json: serde_json::to_string(&slim)?,
            outputs,
        })
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
    let mut select = connection
        .prepare_cached("SELECT stream, data FROM outputs WHERE job = ?1 ORDER BY stream, part")?;
    let mut rows = select.query(params![result.id.clone()])?;
    let mut whole: [Vec<u8>; 4] = Default::default();
    while let Some(row) = rows.next()? {
        let stream: i64 = row.get(0)?;
        if let Some(stream) = whole.get_mut(stream as usize) {
            stream.extend_from_slice(row.get_ref(1)?.as_blob()?);
        }
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

/// The streams of a result in the order of their numbers.
fn streams(result: &Execution) -> [&[u8]; 4] {
    let compile = result.compile.as_ref();
    let of = |stream: fn(&CompileReport) -> &Data| compile.map_or(&[][..], |c| &stream(c).0);
    [
        &result.stdout.0,
        &result.stderr.0,
        of(|compile| &compile.stdout),
        of(|compile| &compile.stderr),
    ]
}
