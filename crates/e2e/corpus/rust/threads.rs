use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

fn main() {
    let total = Arc::new(Mutex::new(0));
    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (total, sender) = (Arc::clone(&total), sender.clone());
            thread::spawn(move || {
                (0..1000).for_each(|_| *total.lock().unwrap() += 1);
                sender.send(number).unwrap();
            })
        })
        .collect();
    drop(sender);
    let mut seen: Vec<i32> = receiver.iter().collect();
    seen.sort();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let start = Instant::now();
    thread::sleep(Duration::from_millis(10));
    println!("{seen:?} {} {:?}", total.lock().unwrap(), thread::current().name());
    println!("{} {}", start.elapsed() >= Duration::from_millis(10), SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() > 1_700_000_000);
    println!("{:?}", thread::available_parallelism());
}
