//! After the last scene, on a terminal: the lab stays up and shows what happens in it.

use std::thread;
use std::time::{Duration, Instant};

use vnet_tests::lab::Background;

use crate::play::Play;

/// How often something happens by itself.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Streams flows and drops until Ctrl-C.
pub(crate) fn until_interrupted(play: &Play<'_>) {
    invite(play);
    let mut streams = [["vnet", "flow", "watch"], ["vnet", "drops", "-f"]]
        .map(|argv| Stream { from: play.start(play.lab.host(), &argv), shown: 0 });
    let mut last = Instant::now();
    while !play.interrupted() {
        streams.iter_mut().for_each(|stream| stream.show_news(play));
        if last.elapsed() > HEARTBEAT {
            last = Instant::now();
            // One that is let in and one that is not.
            for (limit, url) in [("5", "http://203.0.113.1:8088/"), ("0.2", "http://192.168.0.2/")] {
                let _ = play.lab.outside().run(&["curl", "-sS", "--max-time", limit, url]);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    play.resume();
    play.say("");
}

struct Stream {
    from: Background,
    shown: usize,
}

impl Stream {
    fn show_news(&mut self, play: &Play<'_>) {
        let lines = self.from.lines();
        play.show(lines[self.shown..].iter().map(String::as_str));
        self.shown = lines.len();
    }
}

/// Says how to take part.
fn invite(play: &Play<'_>) {
    let environment: Vec<String> =
        play.lab.environment().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let enter = |netns: &str| format!("nsenter --net=/run/netns/{}{netns}", play.lab.name(""));
    play.say(&format!(
        "\n{}",
        play.bold("The lab stays up; this is what happens in it. Ctrl-C takes it down.")
    ));
    play.say(&format!(
        "   from another terminal:\n     {} curl http://203.0.113.1:8088/\n     {} ping 203.0.113.2\n     {} env {} {} status\n",
        enter("outside"),
        enter("net1"),
        enter("host"),
        environment.join(" "),
        vnet_tests::lab::vnet_binary().display(),
    ));
}
