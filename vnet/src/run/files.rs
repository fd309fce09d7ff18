//! What tells processes in an endpoint's namespace whom to ask for names: `/etc/netns/NAME/resolv.conf`, which `ip netns
//! exec` and `vnet ns exec` put in the place of `/etc/resolv.conf`.
//!
//! What was written is recorded before it is, so that it is taken back even by another process than the one that wrote it.
//! A file of somebody else's is left alone.
//!
//! A new file appears as a whole: one that does not begin with the mark is another's, for ever. One that is there is
//! written over where it is, as it may be mounted over another by now, and never emptied.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::instance::Instance;
use crate::kernel;

/// Where such files are.
const DIRECTORY: &str = "/etc/netns";
/// What the name of one ends with that is being written, beside its place.
const NEW: &str = ".vnet-new";
/// Where the ones of an instance are recorded, in its directory.
const RECORD: &str = "resolver.files";

/// The files of an instance's endpoints.
pub(super) struct Files {
    directory: PathBuf,
    record: PathBuf,
    /// How each of them begins.
    mark: String,
    written: BTreeSet<String>,
}

impl Files {
    pub(super) fn of(instance: &Instance) -> Self {
        Self::below(Path::new(DIRECTORY), instance)
    }

    fn below(directory: &Path, instance: &Instance) -> Self {
        let record = instance.run_dir().join(RECORD);
        let written = fs::read_to_string(&record).unwrap_or_default().lines().map(str::to_owned).collect();
        let mark = format!("# Written by `vnet run --resolver` of instance {}.\n", instance.name());
        Self { directory: directory.to_owned(), record, mark, written }
    }

    /// Writes those of these endpoints, and removes those of others; says what cannot be done.
    pub(super) fn write(&mut self, domain: &str, endpoints: &[(String, Vec<IpAddr>)]) -> Vec<String> {
        let mut notes = Vec::new();
        let wanted: BTreeSet<String> =
            endpoints.iter().filter(|(_, asked)| !asked.is_empty()).map(|(name, _)| name.clone()).collect();
        let gone: Vec<String> = self.written.difference(&wanted).cloned().collect();
        for name in gone {
            self.take_back(&name);
        }
        if !wanted.is_subset(&self.written) {
            let all = self.written.union(&wanted).cloned().collect();
            if let Err(error) = self.note(&all) {
                return vec![format!(
                    "namespaces are not told whom to ask: write {}: {error}",
                    self.record.display()
                )];
            }
            self.written = all;
        }
        for (name, asked) in endpoints.iter().filter(|(_, asked)| !asked.is_empty()) {
            // The library asks three at most (`resolv.conf(5)`).
            let servers: String = asked.iter().take(3).map(|addr| format!("nameserver {addr}\n")).collect();
            let text = format!("{}{servers}search {domain}\n", self.mark);
            if let Err(error) = self.put(name, &text) {
                notes.push(format!(
                    "namespace {name} is not told whom to ask: {}: {error}",
                    self.file_of(name).display()
                ));
            }
        }
        notes
    }

    fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.file_of(name);
        let Some(mut file) = open(&path)? else {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            return replace(&path, text);
        };
        let mut present = String::new();
        file.read_to_string(&mut present)?;
        if present == text {
            return Ok(());
        }
        if !self.is_own(name, &present) {
            return Err(somebody_elses());
        }
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)
    }

    /// Whether a file with this text is one of these. One that is recorded and empty is what a crash has left of it.
    fn is_own(&self, name: &str, text: &str) -> bool {
        text.starts_with(&self.mark) || text.is_empty() && self.written.contains(name)
    }

    /// Takes all of them back.
    pub(super) fn remove(&mut self) {
        for name in self.written.clone() {
            self.take_back(&name);
        }
    }

    /// Whether there is one of these for an endpoint.
    fn is_there(&self, name: &str) -> bool {
        let mut text = String::new();
        let file = open(&self.file_of(name));
        let read = file.and_then(|file| file.map(|mut file| file.read_to_string(&mut text)).transpose());
        matches!(read, Ok(Some(_))) && self.is_own(name, &text)
    }

    fn take_back(&mut self, name: &str) {
        let path = self.file_of(name);
        // What one that was killed did not come to rename.
        let _ = fs::remove_file(beside(&path));
        let own = self.is_there(name);
        if own && fs::remove_file(&path).is_err() {
            // It stays recorded.
            return;
        }
        if own || !path.exists() {
            // Best effort, and only if nothing else is in there.
            for directory in [path.parent(), Some(self.directory.as_path())].into_iter().flatten() {
                let _ = fs::remove_dir(directory);
            }
        }
        self.written.remove(name);
        let _ = self.note(&self.written);
    }

    /// Records the names of the endpoints whose files these are.
    fn note(&self, written: &BTreeSet<String>) -> io::Result<()> {
        if written.is_empty() {
            return match fs::remove_file(&self.record) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let names: String = written.iter().map(|name| format!("{name}\n")).collect();
        replace(&self.record, &names)
    }

    fn file_of(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("resolv.conf")
    }
}

fn somebody_elses() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "it is somebody else's, and stays as it is")
}

/// Opens a file, if there is one. What is none, a link even if it leads to one, is somebody else's.
fn open(path: &Path) -> io::Result<Option<File>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(about) if !about.is_file() => return Err(somebody_elses()),
        other => other?,
    };
    kernel::open_without_link(path).map(Some)
}

/// Where a file is written before it is what it is to be.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW);
    name.into()
}

/// Puts a file with this text in its place as a whole: either the former one is there, or all of this.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = beside(path);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A link that somebody put there in between is not followed.
    let mut file = File::create_new(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let done = written.and_then(|()| fs::rename(&new, path));
    if done.is_err() {
        let _ = fs::remove_file(&new);
    }
    done
}

/// Takes back what a process that was killed has left, if there is none that looks after the instance.
pub fn forget_resolver(instance: &Instance) {
    if !super::Only::is_taken(instance) {
        Files::of(instance).remove();
    }
}

/// Likewise what it has left for one endpoint, which is no more.
pub fn forget_resolver_of(instance: &Instance, endpoint: &str) {
    let mut files = Files::of(instance);
    if files.written.contains(endpoint) && !super::Only::is_taken(instance) {
        files.take_back(endpoint);
    }
}

/// The files that processes are told to ask by though nobody answers, as what wrote them was killed.
#[must_use]
pub fn stale_resolver_files(instance: &Instance) -> Vec<PathBuf> {
    let files = Files::of(instance);
    if files.written.is_empty() || super::Only::is_taken(instance) {
        return Vec::new();
    }
    let written = files.written.iter();
    written.filter(|name| files.is_there(name)).map(|name| files.file_of(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    struct Place {
        directory: TempDir,
        instance: Instance,
    }

    impl Place {
        fn new() -> Self {
            let directory = TempDir::new().unwrap();
            let below = |name: &str| directory.path().join(name);
            let instance = Instance::below("default", below("run"), below("bpf")).unwrap();
            fs::create_dir_all(instance.run_dir()).unwrap();
            Self { directory, instance }
        }

        fn files(&self) -> Files {
            Files::below(&self.directory.path().join("netns"), &self.instance)
        }

        fn text(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.files().file_of(name)).ok()
        }
    }

    fn asked(names: &[&str]) -> Vec<(String, Vec<IpAddr>)> {
        let addr: IpAddr = "192.0.2.1".parse().unwrap();
        names.iter().map(|name| ((*name).to_owned(), vec![addr])).collect()
    }

    #[test]
    fn what_cannot_be_recorded_is_not_written_the_next_time_either() {
        let place = Place::new();
        let mut files = place.files();
        // Nothing can be put in the place of a directory.
        let record = place.instance.run_dir().join(RECORD);
        fs::create_dir_all(&record).unwrap();
        for _ in 0..2 {
            assert_eq!(files.write("internal", &asked(&["web"])).len(), 1);
            assert_eq!(place.text("web"), None);
        }
        fs::remove_dir(&record).unwrap();
        assert!(files.write("internal", &asked(&["web"])).is_empty());
        assert!(place.text("web").unwrap().contains("nameserver 192.0.2.1\nsearch internal\n"));
        assert_eq!(fs::read_to_string(&record).unwrap(), "web\n");
        // Another process takes it back.
        place.files().remove();
        assert!(!record.exists() && !place.directory.path().join("netns").exists());
    }

    #[test]
    fn what_a_crash_has_left_is_ones_own() {
        let place = Place::new();
        let mut files = place.files();
        assert!(files.write("internal", &asked(&["web"])).is_empty());
        let (whole, path) = (place.text("web"), files.file_of("web"));
        fs::write(&path, "").unwrap();
        assert!(place.files().write("internal", &asked(&["web"])).is_empty());
        assert_eq!(place.text("web"), whole);
        fs::write(&path, "").unwrap();
        fs::write(beside(&path), "half").unwrap();
        place.files().remove();
        assert!(!place.directory.path().join("netns").exists());
    }

    #[test]
    fn files_and_links_of_others_stay() {
        let place = Place::new();
        let mut files = place.files();
        let elsewhere = place.directory.path().join("elsewhere");
        for name in ["full", "link"] {
            fs::create_dir_all(files.file_of(name).parent().unwrap()).unwrap();
        }
        fs::write(files.file_of("full"), "nameserver 192.0.2.9\n").unwrap();
        symlink(&elsewhere, files.file_of("link")).unwrap();
        assert_eq!(files.write("internal", &asked(&["full", "link"])).len(), 2);
        files.remove();
        assert_eq!(place.text("full").unwrap(), "nameserver 192.0.2.9\n");
        assert!(files.file_of("link").is_symlink() && !elsewhere.exists());
    }
}
