// corpus: exit_code = 101
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        println!("dropped while unwinding");
    }
}

fn main() {
    let _guard = Guard;
    println!("before");
    let numbers: Vec<u32> = std::env::args().map(|_| 1).collect();
    println!("{}", numbers[numbers.len() + 5]);
}
