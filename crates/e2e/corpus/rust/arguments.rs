// corpus: args = ["alpha", "two words", "", "é"]
// corpus: env = { GIVEN = "a value" }
// corpus: exit_code = 200
use std::collections::BTreeMap;

fn main() {
    for (number, argument) in std::env::args_os().enumerate() {
        println!("{number} {argument:?}");
    }
    println!("{:?}", std::env::vars().collect::<BTreeMap<_, _>>());
    std::process::exit(200);
}
