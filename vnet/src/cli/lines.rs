//! Requests in a file, one on each line, in the words of the command line. Lines are taken apart here and not by clap,
//! which takes longer for one than vnet for all the rest of it.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;

use crate::manage::{self, Refused};

/// The requests of a file.
#[derive(Debug)]
pub(super) struct Lines<T> {
    /// The file, for people.
    file: String,
    /// What would have been done with them.
    done: &'static str,
    pub(super) requests: Vec<T>,
    /// The number of each request's line.
    numbers: Vec<usize>,
}

impl<T> Lines<T> {
    /// Reads a file, or standard input by the name of `-`. What `done` says would have been done with it.
    ///
    /// # Errors
    /// When it cannot be read, and with every line that makes no sense.
    pub(super) fn read(
        file: &Path,
        done: &'static str,
        parse: impl Fn(&Words<'_>) -> Result<T, String>,
    ) -> anyhow::Result<Self> {
        let (name, text) = if file == Path::new("-") {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("read standard input")?;
            ("standard input".to_owned(), text)
        } else {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file).with_context(|| format!("read {name}"))?;
            (name, text)
        };
        Self::parse(name, &text, done, parse)
    }

    fn parse(
        file: String,
        text: &str,
        done: &'static str,
        parse: impl Fn(&Words<'_>) -> Result<T, String>,
    ) -> anyhow::Result<Self> {
        let mut lines = Self { file, done, requests: Vec::new(), numbers: Vec::new() };
        let mut bad = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let request = match Words::of(line) {
                Ok(words) if words.is_empty() => continue,
                words => words.and_then(|words| parse(&words)),
            };
            match request {
                Ok(request) => {
                    lines.requests.push(request);
                    lines.numbers.push(number);
                }
                Err(reason) => bad.push((number, reason)),
            }
        }
        if bad.is_empty() { Ok(lines) } else { Err(lines.bad(bad, true).into()) }
    }

    /// The error of a verb, with the lines of the requests that it refused.
    pub(super) fn refused(&self, error: manage::Error) -> anyhow::Error {
        let manage::Error::Refused(refused) = error else { return error.into() };
        let makes_no_sense = refused.iter().any(|refused| matches!(refused.error, manage::Error::Spec(_)));
        let line = |Refused { nth, error }: Refused| {
            (self.numbers[nth], format!("{:#}", anyhow::Error::from(error)))
        };
        self.bad(refused.into_iter().map(line).collect(), makes_no_sense).into()
    }

    fn bad(&self, lines: Vec<(usize, String)>, makes_no_sense: bool) -> BadLines {
        BadLines { file: self.file.clone(), done: self.done, lines, makes_no_sense }
    }
}

/// Lines that cannot be done, so that nothing was.
#[derive(Debug, thiserror::Error)]
pub(super) struct BadLines {
    file: String,
    done: &'static str,
    /// Their numbers, and what is wrong with each.
    lines: Vec<(usize, String)>,
    /// Whether one of them makes no sense in itself.
    pub(super) makes_no_sense: bool,
}

impl fmt::Display for BadLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = if self.lines.len() == 1 { "line" } else { "lines" };
        write!(f, "nothing was {}, because of {} {lines}:", self.done, self.lines.len())?;
        self.lines.iter().try_for_each(|(number, reason)| write!(f, "\n{}:{number}: {reason}", self.file))
    }
}

/// The words of a line, up to a `#`.
#[derive(Debug)]
pub(super) struct Words<'a> {
    arguments: Vec<&'a str>,
    /// Names and values.
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Result<Self, String> {
        let mut all = line.split('#').next().unwrap_or_default().split_whitespace();
        let mut words = Self { arguments: Vec::new(), options: Vec::new() };
        while let Some(word) = all.next() {
            if !word.starts_with("--") {
                words.arguments.push(word);
                continue;
            }
            let option = match word.split_once('=') {
                Some(option) => option,
                None => (word, all.next().ok_or_else(|| format!("{word} has no value"))?),
            };
            words.options.push(option);
        }
        Ok(words)
    }

    fn is_empty(&self) -> bool {
        self.arguments.is_empty() && self.options.is_empty()
    }

    /// Its arguments, which must be as many as these are called.
    pub(super) fn arguments<const N: usize>(&self, called: [&str; N]) -> Result<[&'a str; N], String> {
        if let Some(more) = self.arguments.get(N) {
            return Err(format!("{more:?} is one too many: a line is {}", called.join(" ")));
        }
        let missing =
            || called.get(self.arguments.len()).map_or_else(String::new, |it| format!("{it} is missing"));
        self.arguments.clone().try_into().map_err(|_| missing())
    }

    /// Its options, by name and value.
    pub(super) fn options(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.options.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Lines<String>> {
        Lines::parse("FILE".to_owned(), text, "done", |words| {
            let [first, second] = words.arguments(["FIRST", "SECOND"])?;
            let options: Vec<String> =
                words.options().map(|(name, value)| format!(" {name}:{value}")).collect();
            Ok(format!("{first} {second}{}", options.concat()))
        })
    }

    #[test]
    fn words_options_and_comments_are_told_apart() {
        let lines = parse("# all\n\na b\n  c\td --x 1 --y=2 # e\n--z 3 f g\r\n").unwrap();
        assert_eq!(lines.requests, ["a b", "c d --x:1 --y:2", "f g --z:3"]);
        assert_eq!(lines.numbers, [3, 4, 5]);
    }

    #[test]
    fn every_bad_line_is_named() {
        let error = parse("a b\na\na b c\n--x 1\na b --x\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "nothing was done, because of 4 lines:\n\
             FILE:2: SECOND is missing\n\
             FILE:3: \"c\" is one too many: a line is FIRST SECOND\n\
             FILE:4: FIRST is missing\n\
             FILE:5: --x has no value"
        );
    }
}
