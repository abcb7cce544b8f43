class ElmoTokenizer: pass
