//! Tests of the transcript.

use super::*;

fn output(stage: StageName, stream: Stream, text: &str) -> Event {
    Event::Output {
        stage,
        stream,
        data: text.into(),
    }
}

fn read(transcript: &Transcript, cursor: &mut Cursor, limit: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(event) = transcript.next(cursor, limit, None) {
        seen.push(match event {
            ExecutionEvent::Output { stream, data, .. } => {
                format!("{stream:?} {}", data.to_text())
            }
            ExecutionEvent::Started { stage } => format!("started {stage:?}"),
            ExecutionEvent::Dropped { bytes, .. } => format!("dropped {bytes}"),
            other => format!("{other:?}"),
        });
    }
    seen
}

#[test]
fn each_reader_gets_all_events_in_order() {
    let mut transcript = Transcript::default();
    let mut cursor = Cursor::default();
    transcript.push(&Event::Started {
        stage: StageName::Run,
    });
    transcript.push(&output(StageName::Run, Stream::Stdout, "a"));
    assert_eq!(
        read(&transcript, &mut cursor, 100),
        ["started Run", "Stdout a"]
    );
    transcript.push(&output(StageName::Run, Stream::Stdout, "b"));
    assert_eq!(
        read(&transcript, &mut cursor, 100),
        ["Stdout b"],
        "grown in place"
    );
    transcript.push(&output(StageName::Run, Stream::Stderr, "c"));
    transcript.push(&Event::Dropped {
        stage: StageName::Run,
        stream: Stream::Stderr,
        bytes: 9,
    });
    transcript.push(&output(StageName::Run, Stream::Stdout, "d"));
    assert_eq!(
        read(&transcript, &mut cursor, 100),
        ["Stderr c", "dropped 9", "Stdout d"]
    );
    let late = read(&transcript, &mut Cursor::default(), 100);
    assert_eq!(
        late,
        [
            "started Run",
            "Stdout ab",
            "Stderr c",
            "dropped 9",
            "Stdout d"
        ]
    );
    let stdout = transcript.output(StageName::Run, Stream::Stdout, None);
    assert_eq!(stdout, b"abd");
}

#[test]
fn a_large_piece_is_cut_between_characters() {
    let mut transcript = Transcript::default();
    transcript.push(&output(StageName::Run, Stream::Stdout, "aaaé€x"));
    let seen = read(&transcript, &mut Cursor::default(), 4);
    assert_eq!(seen, ["Stdout aaa", "Stdout é", "Stdout €x"]);
}

#[test]
fn a_reader_resumes_at_its_byte_whatever_was_sent_as_one_event() {
    let mut transcript = Transcript::default();
    transcript.push(&Event::Started {
        stage: StageName::Run,
    });
    transcript.push(&output(StageName::Run, Stream::Stdout, "abcdefgh"));
    transcript.push(&output(StageName::Run, Stream::Stderr, "12345678"));
    let mut cursor = Cursor::default();
    for _ in 0..2 {
        transcript.next(&mut cursor, 4, None).unwrap();
    }
    transcript.push(&output(StageName::Run, Stream::Stdout, "ij"));

    let mut resumed = Cursor::after(cursor.position());

    assert_eq!(
        read(&transcript, &mut resumed, 100),
        ["Stdout efgh", "Stderr 12345678", "Stdout ij"]
    );
    let mut order = Vec::new();
    transcript.settle();
    transcript.write_order(&mut order);
    assert_eq!(
        Transcript::of_order(&order).unwrap().pieces,
        transcript.pieces
    );
}

#[test]
fn a_position_beyond_the_output_gives_nothing_and_no_panic() {
    let mut transcript = Transcript::default();
    transcript.push(&output(StageName::Run, Stream::Stdout, "abc"));
    let mut position = Position::default();
    position.offsets[2] = u64::MAX;

    let mut cursor = Cursor::after(position);

    assert!(read(&transcript, &mut cursor, 100).is_empty());
}
