use std::fs;
use std::process::Command;

fn main() -> std::io::Result<()> {
    if std::env::args().len() > 1 {
        println!("child {:?}", std::env::args().skip(1).collect::<Vec<_>>());
        std::process::exit(3);
    }
    let output = Command::new("./main").arg("again").env("SET", "here").output()?;
    println!("{:?} {:?}", output.status, String::from_utf8_lossy(&output.stdout));
    println!("{:?}", Command::new("no-such-program").output().map_err(|error| error.to_string()));
    fs::write("note.txt", "text")?;
    let mut names: Vec<_> = fs::read_dir(".")?.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    println!("{names:?} {:?} {:?}", std::env::current_dir()?, fs::read("missing").map_err(|error| error.to_string()));
    println!("{}", fs::metadata("note.txt")?.modified()?.elapsed().unwrap().as_secs() < 30);
    println!("{:?}", std::net::TcpStream::connect("192.0.2.1:80").map_err(|error| error.to_string()));
    Ok(())
}
