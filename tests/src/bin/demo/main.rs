//! The demonstration: vnet in a lab of network namespaces, with real programs and real traffic.
//!
//! ```text
//! demo                       play every scene; on a terminal, then stay up and show what happens
//! demo peer http PORT NAME   serve a line "NAME sees CLIENT" over HTTP
//! demo peer udp PORT         serve the same over UDP
//! demo peer ask ADDR:PORT    ask a UDP server and print what it said
//! demo peer ping ADDR        send one echo request, for machines without `ping`
//! ```
//!
//! Exits 0 only if everything held. Nothing is left behind, also after Ctrl-C.

mod peers;
mod play;
mod scenes;
mod stay;

use std::io::IsTerminal;
use std::process::ExitCode;

use vnet_tests::interrupt::Interrupt;
use vnet_tests::lab::Lab;

use play::Play;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demonstrate(),
        ["peer", ref words @ ..] => peers::run(words),
        _ => {
            eprintln!("usage: demo, without arguments");
            ExitCode::from(2)
        }
    }
}

fn demonstrate() -> ExitCode {
    // Before any thread starts, so that all of them leave the signals to the one that waits for them.
    let interrupt = Interrupt::catch();
    // A scene that fails says so in its own words.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(|| perform(&interrupt));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) if interrupt.happened() => ExitCode::from(130),
        Ok(false) => ExitCode::FAILURE,
        Err(panic) => {
            eprintln!("\n{}", play::message(&*panic));
            ExitCode::FAILURE
        }
    }
}

/// Plays everything; true if everything held.
fn perform(interrupt: &Interrupt) -> bool {
    let lab = Lab::new();
    let play = Play::new(&lab, interrupt);
    scenes::picture(&play);
    for scene in scenes::ALL {
        play.scene(scene);
    }
    if std::io::stdout().is_terminal() && play.everything_held() {
        stay::until_interrupted(&play);
    }
    play.scene(&scenes::CURTAIN);
    play.summary();
    play.everything_held()
}
