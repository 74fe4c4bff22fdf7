//! Colours, where they are wanted: on a terminal, unless `NO_COLOR` is set to anything.

use std::{env, io::IsTerminal};

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Something failed.
    Red,
    /// Something may be wrong.
    Yellow,
    /// Something worked.
    Green,
    /// Names and addresses.
    Cyan,
    /// Of less interest than the rest.
    Dim,
    /// Of more.
    Bold,
}

/// Whether a stream gets colours.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    colours: bool,
}

impl Palette {
    /// For a stream.
    pub fn of(stream: &impl IsTerminal) -> Palette {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        Palette { colours: stream.is_terminal() && !refused && !dumb }
    }

    /// Without colours.
    #[cfg(test)]
    pub fn plain() -> Palette {
        Palette { colours: false }
    }

    /// Whether there are colours.
    pub fn is_colored(self) -> bool {
        self.colours
    }

    /// The text in a style.
    pub fn paint(self, style: Style, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match style {
            Style::Red => "31",
            Style::Yellow => "33",
            Style::Green => "32",
            Style::Cyan => "36",
            Style::Dim => "2",
            Style::Bold => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::{Palette, Style};

    #[test]
    fn colours_are_left_out_where_they_are_not_wanted() {
        assert_eq!(Palette { colours: false }.paint(Style::Red, "x"), "x");
        assert_eq!(Palette { colours: true }.paint(Style::Red, "x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
