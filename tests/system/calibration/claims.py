"""What the statistics claim, beside what is true."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    what: str
    told: float
    true: float
    least: float = -float("inf")
    """The claim holds where the truth is within least..most."""
    most: float = float("inf")
    note: str = ""

    @property
    def holds(self) -> bool:
        """A claim that is not made (NaN) holds."""
        return not (self.true < self.least or self.true > self.most)

    def __str__(self) -> str:
        return f"{self.what:70} {self.told:7.3f} {self.true:7.3f}  {self.note}{'' if self.holds else '  DOES NOT HOLD'}"
