//! The merge of layers: the input is a list of entries, from which well-formed layers are made. `layer` has the
//! malformed ones.
#![no_main]

use cloude_fuzz::{Input, bounded, image};
use libfuzzer_sys::fuzz_target;

/// Parts of names. Few, so that entries meet.
const PARTS: [&[u8]; 16] = [
    b"a",
    b"b",
    b"..",
    b".",
    b"/",
    b"a/b",
    b".wh.a",
    b".wh.b",
    b".wh..wh..opq",
    b".wh.",
    b".cloude",
    b"TRAILER!!!",
    b"dev",
    b"console",
    b"../../etc",
    b"",
];
/// Type flags of tar.
const TYPES: &[u8; 9] = b"0123456\x007";

/// Up to three parts with slashes between them, or bytes of the input.
fn name(input: &mut Input) -> Vec<u8> {
    let parts = input.u8();
    if parts & 0xc0 == 0xc0 {
        return input.take(usize::from(parts & 0x3f)).to_vec();
    }
    let picked = (0..1 + parts % 3).map(|_| PARTS[usize::from(input.u8() % 16)]);
    picked.collect::<Vec<_>>().join(&b'/')
}

fn octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}", width = field.len() - 1);
    let start = digits.len() + 1 - field.len();
    field[..digits.len() - start].copy_from_slice(&digits.as_bytes()[start..]);
}

/// One entry: a header whose checksum is right, and its data.
fn entry(layer: &mut Vec<u8>, input: &mut Input) {
    let mut header = [0; 512];
    let kind = TYPES[usize::from(input.u8()) % TYPES.len()];
    for (at, size) in [(0, 100), (157, 100)] {
        let name = name(input);
        let len = name.len().min(size);
        header[at..at + len].copy_from_slice(&name[..len]);
    }
    let len = match kind {
        b'0' | b'7' | 0 => usize::from(input.u8()),
        _ => 0,
    };
    octal(&mut header[100..108], input.u16().into());
    octal(&mut header[108..116], input.u8().into());
    octal(&mut header[116..124], input.u8().into());
    octal(&mut header[124..136], len as u64);
    octal(&mut header[136..148], input.u32().into());
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    header[148..156].fill(b' ');
    let sum = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header[148..155], sum);
    layer.extend(header);
    let mut data = input.take(len).to_vec();
    data.resize(len.next_multiple_of(512), 0);
    layer.extend(data);
}

fuzz_target!(|bytes: &[u8]| {
    bounded(64 << 20, || {
        let mut input = Input::new(bytes);
        let mut layers = vec![Vec::new()];
        while !input.is_empty() {
            if layers.len() < 4 && input.u8() == 0 {
                layers.push(Vec::new());
            }
            if let Some(layer) = layers.last_mut() {
                entry(layer, &mut input);
            }
        }
        image::build(layers.iter().map(Vec::as_slice));
    });
});
