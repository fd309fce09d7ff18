//! The server: a thread of its own, which waits for sockets alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::record::{Look, Record};
use super::room::{Rates, Room, Who};
use super::upstream::{Upstream, Way};
use super::{Place, Questions};
use crate::names::{self, Asker, Outcome, Verdict};

/// Questions under way, and as many connections, in all.
const AT_ONCE: usize = 256;
/// The same for one endpoint, by all of its addresses, and for all together who are none as yet.
const OF_ONE: usize = 32;
/// How long a connection may be quiet.
const QUIET: Duration = Duration::from_secs(10);
/// How long it may last.
const LIFETIME: Duration = Duration::from_mins(1);
/// Most bytes of a datagram with a question.
const LARGEST: usize = 4096;
/// A pause when no connection can be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a command that is changing the instance is waited for, before somebody is told that there is no such name.
const MAY_COME: Duration = Duration::from_millis(500);
/// Between two looks meanwhile.
const BETWEEN: Duration = Duration::from_millis(10);

/// What it is told.
#[derive(Debug)]
pub(super) enum Order {
    /// To listen somewhere.
    Listen(Place, std::net::UdpSocket, std::net::TcpListener),
    /// Not to listen there any more.
    Leave(Place),
}

/// The tasks that listen: they end with this.
struct Listening([JoinHandle<()>; 2]);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What all tasks have in common.
struct Server {
    record: Record,
    questions: Arc<Questions>,
    asked: Rc<Room>,
    connected: Rc<Room>,
    upstream: Upstream,
    /// The addresses at which it listens.
    own: RefCell<HashSet<IpAddr>>,
}

/// Serves until nobody can give orders any more.
pub(super) fn serve(
    record: Record,
    questions: Arc<Questions>,
    orders: UnboundedReceiver<Order>,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Rc::new(Server {
        record,
        questions,
        asked: Room::new(AT_ONCE, OF_ONE),
        connected: Room::new(AT_ONCE, OF_ONE),
        upstream: Upstream::default(),
        own: RefCell::default(),
    });
    runtime.block_on(LocalSet::new().run_until(server.obey(orders)));
    Ok(())
}

impl Server {
    async fn obey(self: Rc<Self>, mut orders: UnboundedReceiver<Order>) {
        let mut listening = BTreeMap::new();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Listen(place, datagrams, connections) => {
                    // The runtime takes whatever is a socket.
                    if let Ok(tasks) = self.listen(&place, datagrams, connections) {
                        listening.insert(place, tasks);
                    }
                }
                Order::Leave(place) => drop(listening.remove(&place)),
            }
            *self.own.borrow_mut() = listening.keys().map(|place| place.addr).collect();
        }
    }

    fn listen(
        self: &Rc<Self>,
        place: &Place,
        datagrams: std::net::UdpSocket,
        connections: std::net::TcpListener,
    ) -> io::Result<Listening> {
        let (datagrams, connections) = (UdpSocket::from_std(datagrams)?, TcpListener::from_std(connections)?);
        let network: Rc<str> = place.network.as_str().into();
        Ok(Listening([
            spawn_local(Rc::clone(self).take_datagrams(Rc::clone(&network), Rc::new(datagrams))),
            spawn_local(Rc::clone(self).take_connections(network, connections)),
        ]))
    }

    async fn take_datagrams(self: Rc<Self>, network: Rc<str>, socket: Rc<UdpSocket>) {
        let mut question = [0; LARGEST];
        let mut rates = Rates::default();
        loop {
            let Ok((length, from)) = socket.recv_from(&mut question).await else {
                // An error that somebody sent about an answer of before.
                sleep(Duration::from_millis(1)).await;
                continue;
            };
            if !rates.allow(from.ip(), Instant::now()) {
                self.questions.count("dropped");
                continue;
            }
            let question = &question[..length];
            let asker = Asker { network: &network, addr: from.ip(), room: Some(u16::MAX) };
            // Nothing here waits for the record or for others: whoever asks next is somebody else.
            let known = self.judge_by_what_is_known(question, asker);
            let verdict = match known {
                Known::For(Verdict::Ignore) => continue,
                Known::For(Verdict::Answer(_, answer)) => {
                    let _ = socket.send_to(&answer, from).await;
                    continue;
                }
                Known::For(Verdict::Forward) => Some(Verdict::Forward),
                Known::Perhaps(_) => None,
            };
            let Some(admitted) = self.asked.admit(self.who(&network, from.ip())) else {
                // Rather what was right a moment ago than nothing.
                if let Known::Perhaps(Verdict::Answer(Outcome::Answered, answer)) = known {
                    self.questions.count("answered");
                    let _ = socket.send_to(&answer, from).await;
                } else {
                    self.questions.count("dropped");
                }
                continue;
            };
            let (server, socket, network) = (Rc::clone(&self), Rc::clone(&socket), Rc::clone(&network));
            let question = question.to_vec();
            spawn_local(async move {
                let asker = Asker { network: &network, addr: from.ip(), room: Some(u16::MAX) };
                let answer = async {
                    let verdict = match verdict {
                        Some(verdict) => verdict,
                        None => server.judge(&question, asker).await,
                    };
                    server.answer(&question, verdict, Way::Datagram).await
                };
                match admitted.unless_evicted(answer).await {
                    Some(Some(answer)) => drop(socket.send_to(&answer, from).await),
                    Some(None) => {}
                    None => server.questions.count("dropped"),
                }
            });
        }
    }

    async fn take_connections(self: Rc<Self>, network: Rc<str>, listener: TcpListener) {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let who = self.who(&network, from.ip());
            if who.is_none() && self.record.is_fresh() {
                self.questions.count("refused");
                continue;
            }
            let Some(admitted) = self.connected.admit(who) else {
                self.questions.count("dropped");
                continue;
            };
            let (server, network) = (Rc::clone(&self), Rc::clone(&network));
            spawn_local(async move {
                let served = timeout(LIFETIME, server.serve(&network, from.ip(), stream));
                // Whoever goes away in between is nobody's business.
                if admitted.unless_evicted(served).await.is_none() {
                    server.questions.count("dropped");
                }
            });
        }
    }

    /// Answers what is asked by a connection, one question after the other, until there is none for a while.
    async fn serve(&self, network: &str, addr: IpAddr, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let question = timeout(QUIET, receive(&mut stream)).await??;
            let asker = Asker { network, addr, room: None };
            let verdict = match self.judge_by_what_is_known(&question, asker) {
                Known::For(verdict) => verdict,
                Known::Perhaps(_) => self.judge(&question, asker).await,
            };
            let Some(answer) = self.forwarded(&question, verdict, network, addr).await else { return Ok(()) };
            timeout(QUIET, send(&mut stream, &answer)).await??;
        }
    }

    /// [`Self::answer`] for a connection: what is asked elsewhere takes room beside those by datagrams.
    async fn forwarded(
        &self,
        question: &[u8],
        verdict: Verdict,
        network: &str,
        addr: IpAddr,
    ) -> Option<Vec<u8>> {
        if verdict != Verdict::Forward {
            return self.answer(question, verdict, Way::Connection).await;
        }
        let Some(admitted) = self.asked.admit(self.who(network, addr)) else {
            self.questions.count("dropped");
            return names::failure(question);
        };
        let answer = self.answer(question, verdict, Way::Connection);
        admitted.unless_evicted(answer).await.unwrap_or_else(|| {
            self.questions.count("dropped");
            names::failure(question)
        })
    }

    /// Who asks.
    fn who(&self, network: &str, addr: IpAddr) -> Who {
        self.record.names().asker(network, addr).map(Rc::from)
    }

    /// What is to be done about a question by what is known now.
    fn judge_by_what_is_known(&self, question: &[u8], asker: Asker<'_>) -> Known {
        let verdict = self.record.names().judge(question, asker);
        match verdict {
            Verdict::Ignore | Verdict::Forward => Known::For(self.counted(verdict)),
            Verdict::Answer(..) if self.record.is_fresh() => Known::For(self.counted(verdict)),
            Verdict::Answer(..) => Known::Perhaps(verdict),
        }
    }

    /// What is to be done about a question, once the record has been looked at. What is not known may be being made: a
    /// command is waited for then, for a while.
    async fn judge(&self, question: &[u8], asker: Asker<'_>) -> Verdict {
        let begin = Instant::now();
        loop {
            let look = self.record.look().await;
            let verdict = self.record.names().judge(question, asker);
            if look == Look::Renewed || !is_in_vain(&verdict) || begin.elapsed() > MAY_COME {
                return self.counted(verdict);
            }
            sleep(BETWEEN).await;
        }
    }

    /// Counts what is not to be asked elsewhere.
    fn counted(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Answer(Outcome::Answered, _) => self.questions.count("answered"),
            Verdict::Answer(Outcome::Unknown, _) => self.questions.count("unknown"),
            Verdict::Answer(Outcome::Refused, _) => self.questions.count("refused"),
            Verdict::Ignore => self.questions.count("ignored"),
            Verdict::Forward => {}
        }
        verdict
    }

    async fn answer(&self, question: &[u8], verdict: Verdict, way: Way) -> Option<Vec<u8>> {
        match verdict {
            Verdict::Ignore => None,
            Verdict::Answer(_, answer) => Some(answer),
            Verdict::Forward => {
                let own = self.own.borrow().clone();
                let answer = self.upstream.ask(question, way, &own).await;
                self.questions.count(if answer.is_some() { "forwarded" } else { "failed" });
                answer.or_else(|| names::failure(question))
            }
        }
    }
}

/// What is to be done about a question.
enum Known {
    /// For certain.
    For(Verdict),
    /// Unless the record says something else by now.
    Perhaps(Verdict),
}

/// Whether somebody is told that there is nothing for him.
fn is_in_vain(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Answer(Outcome::Unknown | Outcome::Refused, _))
}

/// A message has its length in front of it (RFC 1035 section 4.2.2).
pub(super) async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

pub(super) async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
