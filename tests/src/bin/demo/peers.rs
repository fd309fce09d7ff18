//! Small servers and clients as programs, for `vnet ns exec` to run.

use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;

use vnet_tests::peer::{Ask, Ping, Pong, Service, serve_until_killed};

pub(crate) fn run(words: &[&str]) -> ExitCode {
    let done = match *words {
        ["http", port, name] => {
            serve_until_killed(&format!("[::]:{port}"), &Service::Http { name: name.to_owned() })
        }
        ["udp", port] => serve_udp(port),
        ["ask", target] => ask(target),
        ["ping", target] => ping(target),
        _ => {
            eprintln!("usage: demo peer http PORT NAME | udp PORT | ask ADDR:PORT | ping ADDR");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_udp(port: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind(format!("[::]:{port}"))?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let seen = SocketAddr::new(from.ip().to_canonical(), from.port());
        let answer = [format!("{seen}\n").as_bytes(), &buffer[..length]].concat();
        socket.send_to(&answer, from)?;
    }
}

fn ask(target: &str) -> std::io::Result<()> {
    let target = target.parse().map_err(std::io::Error::other)?;
    let answer = Ask::udp(target).here()?;
    println!("{} answered: I see {}", answer.peer, answer.seen);
    Ok(())
}

fn ping(target: &str) -> std::io::Result<()> {
    match Ping::to(target.parse().map_err(std::io::Error::other)?).here()? {
        Pong::Reply { from, after } => {
            println!("reply from {from}: time={:.3} ms", after.as_secs_f64() * 1000.0);
            Ok(())
        }
        error => Err(std::io::Error::other(format!("{error:?}"))),
    }
}
