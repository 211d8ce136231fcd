import sys,types
try:
    import normlab.datasets.split
except ModuleNotFoundError:
    m=types.ModuleType('normlab.datasets'); m.__path__=[]; s=types.ModuleType('normlab.datasets.split')
    s.parse_split=lambda t:t; s.Split=object
    sys.modules['normlab.datasets']=m; sys.modules['normlab.datasets.split']=s
