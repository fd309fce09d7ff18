//! Files in JSON: the same tables as in TOML, written otherwise.
//!
//! What differs is exchanged byte for byte, so that everything stands where it stood: braces around the whole are no
//! more, a comma between its parts is the end of a line, and a colon an equals sign.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// Why a text is no JSON that a file may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Error {
    /// The byte at which that shows.
    pub(super) offset: usize,
    /// What is wrong.
    pub(super) message: String,
}

/// A text in TOML; one in JSON, which alone begins with a brace, as TOML of the same length.
///
/// # Errors
/// When it begins so, and is no JSON.
pub(super) fn as_toml(text: &str) -> Result<Cow<'_, str>, Error> {
    if !text.trim_start().starts_with('{') {
        return Ok(Cow::Borrowed(text));
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
        let before: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let offset = (before + error.column().saturating_sub(1)).min(text.len());
        let offset = (0..=offset).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        let message = error.to_string();
        let reason = message.split(" at line ").next().unwrap_or(&message);
        Error { offset, message: format!("this is not JSON: {reason}") }
    })?;
    let mut toml = String::with_capacity(text.len());
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (offset, c) in text.char_indices() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            toml.push(c);
            continue;
        }
        let instead = match c {
            '{' | '[' => {
                depth += 1;
                if depth == 1 { ' ' } else { c }
            }
            '}' | ']' => {
                depth -= 1;
                if depth == 0 { ' ' } else { c }
            }
            ',' if depth == 1 => '\n',
            ':' => '=',
            '\n' | '\r' => ' ',
            'n' => {
                let message = "null says nothing: leave the key out".to_owned();
                return Err(Error { offset, message });
            }
            '"' => {
                in_string = true;
                c
            }
            other => other,
        };
        toml.push(instead);
    }
    Ok(Cow::Owned(toml))
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;

    #[test]
    fn json_is_the_same_table_with_everything_where_it_was() {
        let text = "{\n  \"a\": {\"b c\": [1, {\"d\": \"x, {y}: \\\"z\\\\\"}],\n  \"e\": []},\n \"f\":\r\n\n true, \"g\": {}\n}\n";
        let toml = as_toml(text).unwrap();
        assert_eq!(toml.len(), text.len());
        assert_eq!(toml.find("\"e\""), text.find("\"e\""));
        let table: Table = toml.parse().unwrap();
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(table).unwrap(), value);
        let empty: Table = as_toml("{}").unwrap().parse().unwrap();
        assert_eq!(empty, Table::new());
    }

    #[test]
    fn what_is_no_json_is_refused_where_that_shows() {
        for (text, at, expected) in [
            ("{\n \"a\": 1,\n}", "}", "this is not JSON: key must be a string"),
            ("{\n \"ä\": 1\n \"b\": 2}", "\"b\"", "this is not JSON: expected `,` or `}`"),
            ("{\"a\"", "\"", "this is not JSON: EOF while parsing an object"),
            ("{\"a\": null}", "null", "null says nothing: leave the key out"),
        ] {
            let Error { offset, message } = as_toml(text).unwrap_err();
            assert_eq!(message, expected, "{text}");
            assert!(text[offset..].starts_with(at), "{text}: {:?}", &text[offset..]);
        }
    }
}
