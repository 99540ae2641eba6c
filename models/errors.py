"""The one error family that users meet."""


class NmsatError(Exception):
    """Something the user gave us cannot be used.

    The command line prints the message as one line and exits with code 2; a message names the place, the
    rule and the offending value: ``<file>: <key>: must be <rule>, not <value>; <hint>``.
    """

    @classmethod
    def rule(cls, where: str, key: str, rule: str, value: object, hint: str = "") -> "NmsatError":
        """Build an error in the house's one format.

        Parameters
        ----------
        where : str
            File, program part or empty.
        key : str
            Dotted path of the offending field, or empty.
        rule : str
            What the value must be, completing "must be ...".
        value : object
            The offending value, shown by ``repr`` and shortened.
        hint : str
            How to put it right, or empty.
        """
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        place = "".join(f"{part}: " for part in (where, key) if part)
        text = f"{place}must be {rule}, not {shown}"
        return cls(f"{text}; {hint}" if hint else text)


class InputFileError(NmsatError):
    """A file that cannot be read or parsed."""


class UnschedulableError(NmsatError):
    """A product for which no legal tiling exists on the given accelerator."""


class MissingToolError(NmsatError):
    """An external tool or optional dependency is not installed; the message says how to install it."""
