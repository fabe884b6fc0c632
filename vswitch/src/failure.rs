//! How is a failure put into words, also one that left something behind?

use anyhow::{Error, Result, anyhow};

/// What failed, on which object, why, and what to do: a line for each problem. Without the error numbers that the standard
/// library adds: the words before them say it all.
pub fn in_words(err: &Error) -> String {
    let text = format!("{err:#}");
    let mut parts = text.split(" (os error ");
    let mut words = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.parse::<i32>().is_ok() => words.push_str(rest),
            _ => words.extend([" (os error ", part]),
        }
    }
    words
}

/// The failure, and what is left although it was to be `undone`: what could not be, or that undoing failed itself.
pub(crate) fn with_undo(err: Error, undone: Result<Vec<String>>) -> Error {
    let left = match undone {
        Ok(left) if left.is_empty() => return err,
        Ok(left) => left.join("; "),
        Err(failure) => format!("{}; see `vswitch port show`", in_words(&failure)),
    };
    anyhow!("{} (and taking it back failed: {left})", in_words(&err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_are_left_out() {
        let words = |text: &'static str| in_words(&anyhow!(text));
        let text = "x.toml: cannot be read: No such file or directory (os error 2)";
        assert_eq!(words(text), "x.toml: cannot be read: No such file or directory");
        assert_eq!(words("a (os error 13): b (os error 1)"), "a: b");
        assert_eq!(words("a (os error x)"), "a (os error x)");
        let missing = Error::new(std::io::Error::from_raw_os_error(libc::ENOENT)).context("open the pin");
        assert_eq!(in_words(&missing), "open the pin: No such file or directory");
    }

    #[test]
    fn the_cause_is_told_whatever_becomes_of_undoing() {
        let says = |undone| in_words(&with_undo(anyhow!("the cause"), undone));
        assert_eq!(says(Ok(Vec::new())), "the cause");
        assert_eq!(
            says(Ok(vec!["a is left".into(), "b too".into()])),
            "the cause (and taking it back failed: a is left; b too)"
        );
        assert_eq!(
            says(Err(anyhow!("another"))),
            "the cause (and taking it back failed: another; see `vswitch port show`)"
        );
    }
}
