//! Datagrams in numbers that no sender reaches one by one: they are handed over, and received, many at a time.

use std::io;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

/// Bytes of a datagram.
const SIZE: usize = 1_400;
/// How many are handed over at once: what fits in the largest packet.
const AT_ONCE: usize = 45;
/// Bytes of the headers of Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Room for what waits on either side, in bytes: more than any limit's queue keeps, so that the sender is not slowed down
/// by it.
const ROOM: usize = 32 << 20;
/// No datagram comes for so long once the sender has ended.
const SILENCE: Duration = Duration::from_millis(500);

/// What was sent and what came, in bits of Ethernet frames in a second.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// What was handed to the socket.
    pub offered: f64,
    /// What came, from the first datagram to the last.
    pub came: f64,
}

/// How long datagrams are to be sent: long enough to tell, or so many seconds as `VNET_FLOOD_SECONDS` says.
#[must_use]
pub fn flood_time() -> Duration {
    let seconds = std::env::var("VNET_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// Sends datagrams by a connected socket at 1.3 times a rate (in bits a second) for so long, IPv4.
///
/// # Panics
/// When the sockets fail, or nothing comes.
#[must_use]
pub fn flood(from: &UdpSocket, to: &UdpSocket, rate: f64, time: Duration) -> Flood {
    setsockopt(from, sockopt::UdpGsoSegment, &i32::try_from(SIZE).expect("a small number"))
        .expect("UDP_SEGMENT");
    setsockopt(from, sockopt::SndBufForce, &ROOM).expect("room to send");
    setsockopt(to, sockopt::UdpGroSegment, &true).expect("UDP_GRO");
    setsockopt(to, sockopt::RcvBufForce, &ROOM).expect("room to receive");
    let bits = |bytes: usize| (bytes / SIZE * (SIZE + HEADERS)) as f64 * 8.0;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            to.set_read_timeout(Some(SILENCE + time)).expect("a timeout");
            let mut buffer = vec![0; 1 << 16];
            to.recv(&mut buffer).expect("a first datagram");
            to.set_read_timeout(Some(SILENCE)).expect("a timeout");
            let first = Instant::now();
            let (mut bytes, mut last) = (0, first);
            while let Ok(length) = to.recv(&mut buffer) {
                bytes += length;
                last = Instant::now();
            }
            bits(bytes) / (last - first).as_secs_f64()
        });
        let (start, mut bytes) = (Instant::now(), 0);
        let many = vec![0; SIZE * AT_ONCE];
        while start.elapsed() < time {
            if bits(bytes) > 1.3 * rate * start.elapsed().as_secs_f64() {
                // A millisecond's worth is one packet or a few.
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            match from.send(&many) {
                Ok(sent) => bytes += sent,
                // The queue is full.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => bytes += many.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("send: {error}"),
            }
        }
        let offered = bits(bytes) / start.elapsed().as_secs_f64();
        Flood { offered, came: receiver.join().expect("the receiver") }
    })
}

/// Asserts that of datagrams that exceed a rate there comes what is allowed and no more, but for 5 %. On a busy machine the
/// sender or the receiver may have to wait for others, so the best of a few attempts counts.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn assert_keeps_to(rate: f64, what: &str, mut flood: impl FnMut() -> Flood) {
    let mut tried = Vec::new();
    for _ in 0..4 {
        let Flood { offered, came } = flood();
        tried.push(format!("{:.1} of {:.1}", came / 1e6, offered / 1e6));
        assert!(came <= rate * 1.05, "{what}: {tried:?} Mbit/s at {} Mbit/s", rate / 1e6);
        if came >= rate * 0.95 {
            return crate::report::report(format_args!(
                "{what}, limited to {} Mbit/s: {tried:?} Mbit/s offered came",
                rate / 1e6
            ));
        }
    }
    panic!("{what}: {tried:?} Mbit/s at {} Mbit/s", rate / 1e6);
}
