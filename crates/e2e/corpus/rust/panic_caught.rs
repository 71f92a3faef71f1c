use std::panic;

fn main() {
    let caught = panic::catch_unwind(|| panic!("the first"));
    println!("{:?}", caught.unwrap_err().downcast_ref::<&str>());
    panic::set_hook(Box::new(|info| println!("hook: {}", info.location().unwrap())));
    let joined = std::thread::Builder::new().name("mine".into()).spawn(|| panic!("the second")).unwrap().join();
    println!("{}", joined.is_err());
}
