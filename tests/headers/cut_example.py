"""Cut the example out of a header's first @code block and put it into a program.

    cut_example.py HEADER FRAME OUT     FRAME holds a line @EXAMPLE@
"""
import sys

header, frame, out = sys.argv[1:]
text = open(header).read()
block = text.split("@code\n", 1)[1].split("@endcode", 1)[0]
lines = [line.lstrip()[1:] for line in block.splitlines() if line.lstrip().startswith("*")]
code = "\n".join(line[1:] if line.startswith(" ") else line for line in lines).rstrip()
with open(out, "w") as f:
    f.write(open(frame).read().replace("@EXAMPLE@", code))
