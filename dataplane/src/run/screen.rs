//! What the user sees: lines that stay, and on a terminal a table below them that is drawn again and again.

use std::io::{self, IsTerminal, Stdout, Write};

use crossterm::cursor::{Hide, MoveToColumn, MoveUp, Show};
use crossterm::queue;
use crossterm::terminal::{self, Clear, ClearType};

/// What a terminal that does not tell its width is taken for.
const WIDTH: u16 = 100;

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    out: Stdout,
    live: bool,
    table: Vec<String>,
    /// Lines of the table that are on the screen now.
    drawn: u16,
}

impl Screen {
    /// Takes standard output, and finds out whether somebody looks at it.
    pub fn open() -> Self {
        let out = io::stdout();
        Self { live: out.is_terminal(), out, table: Vec::new(), drawn: 0 }
    }

    /// Whether there is a terminal to draw on.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Writes a line that stays, above the table.
    pub fn say(&mut self, line: &str) {
        self.paint(|screen| {
            screen.erase()?;
            writeln!(screen.out, "{line}")?;
            screen.draw()
        });
    }

    /// Replaces the table.
    pub fn show(&mut self, table: Vec<String>) {
        self.paint(|screen| {
            screen.erase()?;
            screen.table = table;
            screen.draw()
        });
    }

    /// Leaves the table where it stands; what follows is written below it.
    pub fn settle(&mut self) {
        self.table.clear();
        self.drawn = 0;
        self.paint(|screen| if screen.live { queue!(screen.out, Show) } else { Ok(()) });
    }

    fn paint(&mut self, paint: impl FnOnce(&mut Self) -> io::Result<()>) {
        // A reader that left, as `| head` does, is no reason to stop a fleet that others send to.
        let _ = paint(self).and_then(|()| self.out.flush());
    }

    fn erase(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            queue!(
                self.out,
                MoveUp(self.drawn),
                MoveToColumn(0),
                Clear(ClearType::FromCursorDown)
            )?;
            self.drawn = 0;
        }
        Ok(())
    }

    fn draw(&mut self) -> io::Result<()> {
        if !self.live || self.table.is_empty() {
            return Ok(());
        }
        let (width, height) = terminal::size().unwrap_or((WIDTH, u16::MAX));
        queue!(self.out, Hide)?;
        // A line that wraps, or a table taller than the screen, could not be erased again.
        for line in self.table.iter().take(usize::from(height.saturating_sub(1))) {
            let fits: String = line.chars().take(usize::from(width)).collect();
            writeln!(self.out, "{fits}")?;
            self.drawn += 1;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.settle();
    }
}
