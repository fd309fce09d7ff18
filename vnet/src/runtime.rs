//! Container runtimes, asked where the network namespace of one of their running containers is.
//!
//! Docker and Podman answer by the same HTTP interface on a socket of their own (`GET /containers/NAME/json`, Docker
//! Engine API 1.24 and later). containerd notes the first process of each task where its shims keep their state.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

/// How long a runtime may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer: a container's description has some thousand.
const LONGEST: usize = 4 << 20;

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// Podman, whose socket must be listened on (`podman.socket`).
    Podman,
    /// containerd, which knows containers by their identifiers alone.
    Containerd,
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Whose it is.
    pub runtime: Runtime,
    /// Where its network namespace can be opened.
    pub namespace: PathBuf,
}

/// Where runtimes are looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// Docker's socket.
    pub docker: PathBuf,
    /// Podman's socket.
    pub podman: PathBuf,
    /// Where containerd's shims keep their state: a directory for each of its namespaces, one in it for each task.
    pub containerd: PathBuf,
}

/// Why a container's namespace is not known.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says it all in its message")]
pub enum Error {
    #[error("no container runtime is found: neither {0}; name the namespace with --pid or --netns instead", .looked.join(" nor "))]
    NoRuntime { looked: Vec<String> },
    #[error("{runtime} is not found: there is no {}", .path.display())]
    NotFound { runtime: Runtime, path: PathBuf },
    #[error("ask {runtime} at {}", .path.display())]
    Ask { runtime: Runtime, path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{runtime} at {} does not answer within {} seconds", .path.display(), PATIENCE.as_secs())]
    Slow { runtime: Runtime, path: PathBuf },
    #[error("{runtime} says of container {name}: {said}")]
    Refused { runtime: Runtime, name: String, said: String },
    #[error("there is no container {name}: asked {}", list(.asked))]
    NoContainer { name: String, asked: Vec<Runtime> },
    #[error("container {name} is known to {}: say which with --runtime", list(.runtimes))]
    Ambiguous { name: String, runtimes: Vec<Runtime> },
    #[error("{name} may be one of several containers of {runtime}: {}", .candidates.join(", "))]
    Several { runtime: Runtime, name: String, candidates: Vec<String> },
    #[error("container {name} of {runtime} is {status}: it has a network namespace only while it runs")]
    NotRunning { runtime: Runtime, name: String, status: String },
    #[error("container {name} of {runtime} shares the host's network: there is nothing to attach")]
    OnTheHost { runtime: Runtime, name: String },
    #[error("{0:?} cannot name a container: use letters, digits, '.', '-' and '_'")]
    Name(String),
    #[error("{variable} is {value:?}; only sockets of this machine are asked, as unix:///PATH")]
    Elsewhere { variable: &'static str, value: String },
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
}

fn list(runtimes: &[Runtime]) -> String {
    runtimes.iter().map(Runtime::to_string).collect::<Vec<_>>().join(", ")
}

impl Runtime {
    /// Every runtime, with the word for it on the command line.
    pub const WORDS: [(&'static str, Self); 3] =
        [("docker", Self::Docker), ("podman", Self::Podman), ("containerd", Self::Containerd)];
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
            Self::Containerd => "containerd",
        })
    }
}

impl Places {
    /// Where they usually are, unless `DOCKER_HOST` or `CONTAINER_HOST` name another socket, as they do for the clients of
    /// Docker and Podman.
    ///
    /// # Errors
    /// When one of these names something else than a socket of this machine.
    pub fn of_environment() -> Result<Self, Error> {
        Ok(Self {
            docker: socket("DOCKER_HOST", "/run/docker.sock")?,
            podman: socket("CONTAINER_HOST", "/run/podman/podman.sock")?,
            containerd: PathBuf::from("/run/containerd/io.containerd.runtime.v2.task"),
        })
    }

    fn of(&self, runtime: Runtime) -> &Path {
        match runtime {
            Runtime::Docker => &self.docker,
            Runtime::Podman => &self.podman,
            Runtime::Containerd => &self.containerd,
        }
    }

    /// The running container of that name, of one runtime or of whichever knows it.
    ///
    /// # Errors
    /// When there is none, when it does not run or has no namespace of its own, or when a runtime cannot be asked.
    pub async fn find(&self, name: &str, runtime: Option<Runtime>) -> Result<Container, Error> {
        // It becomes a part of a request and of a path.
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
            return Err(Error::Name(name.to_owned()));
        }
        let (asked, looked): (Vec<Runtime>, Vec<Runtime>) = match runtime {
            Some(runtime) if self.of(runtime).exists() => (vec![runtime], Vec::new()),
            Some(runtime) => return Err(Error::NotFound { runtime, path: self.of(runtime).to_owned() }),
            None => Runtime::WORDS.iter().map(|(_, it)| *it).partition(|it| self.of(*it).exists()),
        };
        if asked.is_empty() {
            let looked = looked.iter().map(|it| format!("{it} at {}", self.of(*it).display())).collect();
            return Err(Error::NoRuntime { looked });
        }
        let mut found = Vec::new();
        for runtime in &asked {
            let pid = match runtime {
                Runtime::Containerd => task(&self.containerd, name)?.map(|pid| (pid, None)),
                _ => inspect(*runtime, self.of(*runtime), name).await?,
            };
            found.extend(pid.map(|(pid, sandbox)| (*runtime, pid, sandbox)));
        }
        match &found[..] {
            [] => Err(Error::NoContainer { name: name.to_owned(), asked }),
            // Docker's containers are containerd's too, and known there by the same identifier.
            [(runtime, pid, sandbox), others @ ..] if others.iter().all(|(_, other, _)| other == pid) => {
                container(name, *runtime, *pid, sandbox.as_deref())
            }
            several => {
                let runtimes = several.iter().map(|(runtime, ..)| *runtime).collect();
                Err(Error::Ambiguous { name: name.to_owned(), runtimes })
            }
        }
    }
}

/// Where the network namespace of a process can be opened, for as long as it lives.
#[must_use]
pub fn of_process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// The socket that a variable names, or the usual one.
fn socket(variable: &'static str, usual: &str) -> Result<PathBuf, Error> {
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(PathBuf::from(usual));
    };
    let value = value.to_string_lossy().into_owned();
    match value.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err(Error::Elsewhere { variable, value }),
    }
}

/// Where the namespace of a container's first process can be opened. The runtime's own name for it outlives the process
/// and is nobody else's later; but it may be visible to the runtime alone.
fn container(name: &str, runtime: Runtime, pid: u32, sandbox: Option<&Path>) -> Result<Container, Error> {
    let by_process = of_process(pid);
    let identity = |path: &Path| {
        let about = fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Ok::<_, Error>((about.dev(), about.ino()))
    };
    let own = identity(&by_process)?;
    if own == identity(&of_process(std::process::id()))? {
        return Err(Error::OnTheHost { runtime, name: name.to_owned() });
    }
    let sandbox = sandbox.filter(|path| identity(path).is_ok_and(|found| found == own));
    Ok(Container { runtime, namespace: sandbox.map_or(by_process, Path::to_owned) })
}

/// What is asked of a container's description.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    state: Standing,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Standing {
    status: String,
    running: bool,
    pid: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    sandbox_key: PathBuf,
}

/// What an answer says that is no description.
#[derive(Debug, Deserialize)]
struct Complaint {
    message: String,
}

/// The first process of a container and the runtime's name for its namespace; nothing if there is no such container.
async fn inspect(runtime: Runtime, path: &Path, name: &str) -> Result<Option<(u32, Option<PathBuf>)>, Error> {
    let asked = tokio::time::timeout(PATIENCE, get(path, &format!("/containers/{name}/json"))).await;
    let Ok(answer) = asked else { return Err(Error::Slow { runtime, path: path.to_owned() }) };
    let failed = |source| Error::Ask { runtime, path: path.to_owned(), source };
    let (status, body) = answer.map_err(failed)?;
    if status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if status != StatusCode::OK {
        let said =
            serde_json::from_slice(&body).map_or_else(|_| status.to_string(), |it: Complaint| it.message);
        return Err(Error::Refused { runtime, name: name.to_owned(), said });
    }
    let Description { state, network_settings } =
        serde_json::from_slice(&body).map_err(|error| failed(Box::new(error)))?;
    if !state.running || state.pid == 0 {
        return Err(Error::NotRunning { runtime, name: name.to_owned(), status: state.status });
    }
    let sandbox = network_settings.sandbox_key;
    Ok(Some((state.pid, Some(sandbox).filter(|path| path.is_absolute()))))
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks by HTTP over a socket of this machine.
async fn get(socket: &Path, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(header::HOST, "localhost").body(Empty::<Bytes>::new())?;
    let answer = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| {
            let too_long = error.is::<LengthLimitError>();
            if too_long { format!("the answer has more than {LONGEST} bytes").into() } else { error }
        })?;
        Ok::<_, Failure>((status, body.to_bytes()))
    };
    // The connection carries what the other one waits for. It ends with the sender.
    let (answer, carried) = tokio::join!(answer, connection);
    answer.map_err(|error| carried.err().map_or(error, Failure::from))
}

/// The first process of containerd's task of that identifier, which may be shortened as long as it is one task's alone.
fn task(directory: &Path, name: &str) -> Result<Option<u32>, Error> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    for namespace in below(directory)? {
        for task in below(&namespace)? {
            let id = task.file_name().unwrap_or_default().to_string_lossy();
            if id == name {
                return process(&task).map(Some);
            }
            if id.starts_with(name) {
                candidates.push(task);
            }
        }
    }
    match &candidates[..] {
        [] => Ok(None),
        [task] => process(task).map(Some),
        several => {
            let id = |task: &PathBuf| task.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let candidates = several.iter().map(id).collect();
            Err(Error::Several { runtime: Runtime::Containerd, name: name.to_owned(), candidates })
        }
    }
}

fn process(task: &Path) -> Result<u32, Error> {
    let path = task.join("init.pid");
    let text = fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let number = text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    number.map_err(|source| Error::Read { path, source })
}

/// What is in a directory, sorted.
fn below(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut paths = entries.map_err(|source| Error::Read { path: directory.to_owned(), source })?;
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    /// Places of which none is there.
    fn nowhere(directory: &Path) -> Places {
        let place = |name| directory.join(name);
        Places { docker: place("docker"), podman: place("podman"), containerd: place("containerd") }
    }

    /// Answers one request on a socket; gives the request line.
    fn answers(socket: &Path, answer: String) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap().lines().next().unwrap().to_owned()
        })
    }

    fn response(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    }

    async fn docker_says(status: &str, body: &str) -> Result<Container, Error> {
        let directory = TempDir::new().unwrap();
        let places = nowhere(directory.path());
        let asked = answers(&places.docker, response(status, body));
        let found = places.find("web", None).await;
        assert_eq!(asked.join().unwrap(), "GET /containers/web/json HTTP/1.1");
        found
    }

    #[tokio::test]
    async fn what_a_runtime_says_of_a_container_is_told() {
        let stopped = r#"{"State":{"Status":"exited","Running":false,"Pid":0}}"#;
        for (status, body, expected) in [
            (
                "404 Not Found",
                r#"{"message":"No such container: web"}"#,
                "there is no container web: asked Docker",
            ),
            ("500 Oops", r#"{"message":"it hurts"}"#, "Docker says of container web: it hurts"),
            ("200 OK", stopped, "container web of Docker is exited"),
        ] {
            let message = docker_says(status, body).await.unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
        assert!(matches!(docker_says("200 OK", "{}").await.unwrap_err(), Error::Ask { .. }));
    }

    #[tokio::test]
    async fn a_container_on_the_hosts_network_has_nothing_to_attach() {
        let own = std::process::id();
        let body = format!(r#"{{"State":{{"Status":"running","Running":true,"Pid":{own}}}}}"#);
        assert!(matches!(docker_says("200 OK", &body).await.unwrap_err(), Error::OnTheHost { .. }));
    }

    #[tokio::test]
    async fn nobody_is_asked_about_what_cannot_be_a_name() {
        let directory = TempDir::new().unwrap();
        for name in ["", "a/b", "../etc", "web json", "web?x", ".", "wéb"] {
            let found = nowhere(directory.path()).find(name, None).await;
            assert!(matches!(found, Err(Error::Name(_))), "{name:?}");
        }
        let found = nowhere(directory.path()).find("web", None).await.unwrap_err().to_string();
        assert!(found.contains("neither Docker at ") && found.contains("nor containerd at "), "{found}");
        let found = nowhere(directory.path()).find("web", Some(Runtime::Podman)).await.unwrap_err();
        assert!(matches!(found, Error::NotFound { runtime: Runtime::Podman, .. }), "{found}");
    }

    #[test]
    fn a_task_of_containerd_is_found_by_the_beginning_of_its_identifier() {
        let directory = TempDir::new().unwrap();
        for (task, pid) in
            [("moby/05afc4", "11"), ("moby/05bb", "12"), ("k8s.io/77aa", "13\n"), ("k8s.io/77aabb", "14")]
        {
            let task = directory.path().join(task);
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("init.pid"), pid).unwrap();
        }
        for (name, expected) in [("05a", Some(11)), ("05bb", Some(12)), ("77aa", Some(13)), ("99", None)] {
            assert_eq!(task(directory.path(), name).unwrap(), expected, "{name}");
        }
        let several = task(directory.path(), "05").unwrap_err().to_string();
        assert!(several.ends_with("05afc4, 05bb"), "{several}");
    }
}
