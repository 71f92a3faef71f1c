//! Runs a Python program in a fresh micro-VM, and prints its output.
//!
//! `make demo` installs the kernel and the language image that this example uses.

use cloude_engine::{Engine, EngineConfig, Program};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::start(EngineConfig::default()).await?;
    let program = Program::new(
        "python",
        "import platform; print('Hello from', platform.node())",
    );

    let output = engine.run(&program).await?;

    print!("{}", String::from_utf8_lossy(&output.stdout));
    engine.shut_down().await;
    Ok(())
}
