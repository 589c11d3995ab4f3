"""Cells that lean on what IPython, a notebook or ipykernel do in particular, in the order in which they run."""

CELLS = (
    # -- values and how they are shown
    "x = 5", "x", "a = 1;", "a;", "3.14159", "%precision 3", "3.14159", "'é漢😀'", "print('\\r1\\r2')", "lambda: 0",
    "class A: pass\nA", "f'{1!r:>10}'", "def gen():\n yield 1\ngen()", "globals()['__builtins__']", "__name__", "__file__",
    "import __main__; __main__.x", "import inspect\ndef f(): pass\ninspect.getsource(f)",
    "import pandas as pd, numpy as np; pd.DataFrame({'a': range(3)})", "pd.Series([1, 2])", "np.arange(3)",
    "np.random.rand()", "display(pd.DataFrame({'a': range(3)}))", "pd.DataFrame([range(40)])", "print(pd.DataFrame([range(40)]))",
    # -- errors
    "1/0", "%debug", "assert False, 'msg'", "raise ValueError", "raise ValueError('a\\nb')", "exec('1/0')", "eval('1+')",
    "raise KeyboardInterrupt", "import sys\ntry:\n  sys.exit(1)\nexcept SystemExit as e: print('exit', e.code)", "sys.exit()",
    "sys.exit('bye')", "print(1\n", "x = (", "'abc", "def f():\nreturn 1", "\tx = 1", "  1", "if True:\n    pass\n  x", "é = 1; é",
    "\u3000x=1", "import ctypes; ctypes.CDLL('nosuch')", "import nosuch", "raise ExceptionGroup('two', [ValueError(1)])",
    "%xmode Plain", "1/0", "%xmode Context", "def deep(): deep()\ndeep()", "input()", "class B:\n  def __repr__(self): 1/0\nB()",
    # -- commands and magics
    "!echo hi; ls /nonexistent", "!nosuchcommand", "out = !ls /nonexistent\nout", "_exit_code", "%%sh\necho $HOME", "%sx echo 1",
    "%%script bash\necho a; echo b >&2", "%%bash\nexit 2", "%env NOSUCH", "%pwd", "pwd", "%who", "%whos", "%history", "print?", "x??",
    "%%html\n<b>x</b>", "%%latex\nx", "%%writefile t2.py\ny = 1", "import t2; t2.y", "%run t2.py", "y", "%load t2.py", "%pdb on", "%pdb off",
    "%colors nocolor", "%automagic", "%automagic", "%sql x", "%%nosuch\nx", "?", "!", "%", "%load_ext autoreload", "%autoreload 2",
    "get_ipython().run_line_magic('pwd', '')", "get_ipython().system('echo 1')", "get_ipython().getoutput('echo 1')",
    "%config InlineBackend.figure_format = 'svg'", "import matplotlib.pyplot as plt; _ = plt.plot([1])", "%matplotlib agg",
    "_ = plt.plot([1]); plt.show()", "%matplotlib inline", "_ = plt.plot([1]); plt.show()", "%config InlineBackend.figure_format = 'png'",
    "fig, axes = plt.subplots(2)\nfig", "%pylab inline", "import warnings; warnings.warn('x')",
    # -- streams, displays, asyncio
    "print(sys.stdout.encoding, sys.stdout.isatty(), sys.stdin.isatty())", "sys.stdin.read()", "sys.stdout.fileno() >= 0",
    "import logging; logging.warning('w'); logging.getLogger().handlers", "import subprocess, time; _ = subprocess.run('echo q', shell=True); time.sleep(0.5)",
    "from IPython.display import *\ndisplay(HTML('<b>'), Markdown('# x'), Math('x'), JSON({'a': 1}), Latex('x'))",
    "Image(data=b'\\x89PNG\\r\\n\\x1a\\n', format='png')", "Audio([0.0] * 100, rate=8000)", "clear_output()",
    "async def g(): return 1\nawait g()", "[await g() for _ in range(2)]", "import asyncio\nasync with asyncio.Lock(): print(1)",
    "task = asyncio.create_task(g())", "await task", "asyncio.get_event_loop().is_closed()",
    # -- what each kernel does in its own way
    "asyncio.run(g())", "asyncio.get_event_loop().is_running()", "sys.stdout.buffer.write(b'x')", "%lsmagic", "type(get_ipython())",
    "%edit x", "breakpoint()", "import random; random.random()",
    # -- the end
    "%reset -f", "x", "# only comment", "", "   ", "\n\n1\n\n",
)  # fmt: skip

DIFFERENT = {
    "asyncio.run(g())": "works, where ipykernel refuses it because its own loop runs",
    "asyncio.get_event_loop().is_running()": "a loop runs only while a cell awaits; that is why asyncio.run() works",
    "sys.stdout.buffer.write(b'x')": "neither stream has a buffer; the message names the class",
    "%lsmagic": "there is no magic to connect another console, nor one for a notebook's autosave",
    "type(get_ipython())": "of the same name, by which libraries know it; of another module",
    "%edit x": "no editor can be opened: said so, where ipykernel ends in a TypeError",
    "breakpoint()": "asks, and is refused; ipykernel's waits for a debugger that never comes, and is skipped",
    "import random; random.random()": "from the seed; ipykernel itself has drawn from the same numbers before",
}
"""Which of these the two kernels show differently, and why."""
